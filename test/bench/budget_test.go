// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVerdict(t *testing.T) {
	for name, tc := range map[string]struct {
		budget budget
		got    float64
		want   string
	}{
		"below what is allowed":            {plainIP, 0.4, "0.40 <= 0.65 xdp1  kept"},
		"exactly what is allowed":          {frequent, 0.9, "0.90 <= 0.9 xdp1  kept"},
		"above what is allowed":            {frequent, 0.91, "0.91 <= 0.9 xdp1  MISSED"},
		"more than is asked for":           {throughput, 101, "101 >= 97 % of empty  kept"},
		"less than is asked for":           {throughput, 96.9, "96.9 >= 97 % of empty  MISSED"},
		"no figure, with a bound above":    {plainIP, math.NaN(), "NaN <= 0.65 xdp1  MISSED"},
		"no figure, with a bound below":    {throughput, math.NaN(), "NaN >= 97 % of empty  MISSED"},
		"nothing, where nothing's allowed": {snapshotAllocations, 0, "0.00 <= 0 allocations  kept"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.budget.verdict(tc.got); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestMissedBudget(t *testing.T) {
	var budgets ledger
	var out bytes.Buffer
	budgets.judge("a", plainIP, 0.5)
	if err := conclude(&out, budgets); err != nil {
		t.Errorf("nothing is missed, and yet: %v", err)
	}
	budgets.judge("b", plainIP, 0.7123)
	out.Reset()
	if err := conclude(&out, budgets); !errors.Is(err, errMissed) {
		t.Errorf("the error is %v", err)
	}
	_, missed, _ := strings.Cut(out.String(), "missed:\n")
	if diff := cmp.Diff("  b: 0.71, must be <= 0.65 xdp1\n", missed); diff != "" {
		t.Errorf("what is missed (-want +got):\n%s", diff)
	}
	if !strings.Contains(out.String(), "1 of 2 budgets kept") {
		t.Errorf("it says %q", out.String())
	}
}
