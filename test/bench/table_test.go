// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"testing"

	"github.com/xdp-operator/xdp-operator/test/util/golden"
)

func TestTableOfCosts(t *testing.T) {
	var out bytes.Buffer
	if err := writeCostHeader(&out); err != nil {
		t.Fatal(err)
	}
	c := costs{
		empty: {ns: 10.44, low: 10.3, high: 10.6},
		xdp1:  {ns: 5.9, low: 5.6, high: 6.2},
		limit: {ns: 1.3, low: -0.1, high: 1.4},
		plain: {ns: 2.5, low: 2.2, high: 3.1, toXDP1: 0.424, toLimit: 1.92, toReference: 0.42},
		jumbo: {ns: 36, low: 35.4, high: 37.1, toXDP1: 6.1, toLimit: 27.7, toReference: 6.1},
	}
	for _, k := range kinds()[:2] {
		if err := writeCosts(&out, k, c, k.budget.verdict(c[plain].toXDP1)); err != nil {
			t.Fatal(err)
		}
	}
	golden.Check(t, "testdata/costs.txt", out.String())
}
