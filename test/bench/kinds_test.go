// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
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

func TestJudgeKind(t *testing.T) {
	for name, tc := range map[string]struct {
		allowance
		xdp1, ours float64
		want       string
	}{
		"a ratio, where xdp1 takes 5 ns":                    {plainIP, 5, 3, "0.60 <= 0.65 xdp1  kept"},
		"a ratio that is too high":                          {plainIP, 5, 3.5, "0.70 <= 0.65 xdp1  MISSED"},
		"half a ns, where xdp1 takes less than 3":           {plainIP, 0.1, 0.5, "0.40 <= 0.5 ns over xdp1  kept"},
		"half a ns, where ours takes less than nothing":     {frequent, -0.1, -0.4, "-0.30 <= 0.5 ns over xdp1  kept"},
		"more than half a ns, where xdp1 takes less than 3": {frequent, 2.9, 3.5, "0.60 <= 0.5 ns over xdp1  MISSED"},
		"cycles on a slow core":                             {rare, 4, 10, "25.0 <= 30 cycles  kept"},
		"too many cycles":                                   {rare, 4, 12.4, "31.0 <= 30 cycles  MISSED"},
		"cycles of each extension header":                   {chain, 5, 20, "5.00 <= 6 cycles for each header  kept"},
		"neither":                                           {both, 5, 20, "50.0 cycles, no budget"},
		"xdp1 was not measured":                             {plainIP, math.NaN(), 3, "NaN <= 0.5 ns over xdp1  MISSED"},
	} {
		t.Run(name, func(t *testing.T) {
			c := costs{xdp1: {ns: tc.xdp1}, plain: {ns: tc.ours, toXDP1: tc.ours / tc.xdp1}}
			const plainIPv6, cycle = 4, 0.4
			if got := (kind{allowance: tc.allowance}).judge(&ledger{}, c, plainIPv6, cycle); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
