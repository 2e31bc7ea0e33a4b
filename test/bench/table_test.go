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
		plain: {ns: 2.5, low: 2.2, high: 3.1, toXDP1: 0.424},
		jumbo: {ns: 36, low: 35.4, high: 37.1, toXDP1: 6.1},
	}
	var budgets ledger
	if err := writeCosts(&out, kinds()[0], c, kinds()[0].judge(&budgets, c, 0, 0.4)); err != nil {
		t.Fatal(err)
	}
	c[xdp1] = cost{ns: 0.2, low: -0.1, high: 0.4, toXDP1: 1}
	c[plain].toXDP1 = 12.5
	if err := writeCosts(&out, kinds()[1], c, kinds()[1].judge(&budgets, c, 0, 0.4)); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "testdata/costs.txt", out.String())
}
