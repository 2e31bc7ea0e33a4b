// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/xdp-operator/xdp-operator/test/util/classify"
)

func TestKinds(t *testing.T) {
	names := map[string]bool{}
	for _, k := range kinds() {
		if names[k.name] {
			t.Errorf("%s is there twice", k.name)
		}
		names[k.name] = true
		if len(k.name) > frameWidth {
			t.Errorf("%s is wider than its column", k.name)
		}
		if got := classify.Frame(k.frame.Data); got != k.frame.Class {
			t.Errorf("%s is %s and should be %s", k.name, got, k.frame.Class)
		}
	}
	if first := kinds()[0]; first.name != reference || len(first.frame.Data) != 64 {
		t.Errorf("the first is %s with %d bytes", first.name, len(first.frame.Data))
	}
}
