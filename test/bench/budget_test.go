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

var ratio = budget{bound: 0.65, unit: " xdp1"}

func TestVerdict(t *testing.T) {
	for name, tc := range map[string]struct {
		budget budget
		got    float64
		want   string
	}{
		"below what is allowed":            {ratio, 0.4, "0.40 <= 0.65 xdp1  kept"},
		"exactly what is allowed":          {budget{bound: 0.9, unit: " xdp1"}, 0.9, "0.90 <= 0.9 xdp1  kept"},
		"above what is allowed":            {budget{bound: 0.9, unit: " xdp1"}, 0.91, "0.91 <= 0.9 xdp1  MISSED"},
		"more than is asked for":           {throughput, 101, "101 >= 97 % of empty  kept"},
		"less than is asked for":           {throughput, 96.9, "96.9 >= 97 % of empty  MISSED"},
		"no figure, with a bound above":    {ratio, math.NaN(), "NaN <= 0.65 xdp1  MISSED"},
		"no figure, with a bound below":    {throughput, math.NaN(), "NaN >= 97 % of empty  MISSED"},
		"what is known to be missed":       {budget{bound: 5, known: "it is slow"}, 6, "6.00 <= 5  MISSED, as known"},
		"what is known to be, and is kept": {budget{bound: 5, known: "it is slow"}, 4, "4.00 <= 5  kept"},
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
	budgets.judge("a", ratio, 0.5)
	if err := conclude(&out, budgets); err != nil {
		t.Errorf("nothing is missed, and yet: %v", err)
	}
	budgets.judge("b", ratio, 0.7123)
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

func TestKnownMissIsNoError(t *testing.T) {
	var budgets ledger
	var out bytes.Buffer
	b := ratio
	b.known = "it is slow"
	budgets.judge("a", b, 0.7)
	if err := conclude(&out, budgets); err != nil {
		t.Errorf("the error is %v", err)
	}
	if want := "0 of 1 budgets kept"; !strings.Contains(out.String(), want) {
		t.Errorf("it says %q without %q", out.String(), want)
	}
	_, missed, _ := strings.Cut(out.String(), "known to be missed:\n")
	if diff := cmp.Diff("  a: 0.70, must be <= 0.65 xdp1 (it is slow)\n", missed); diff != "" {
		t.Errorf("what is missed (-want +got):\n%s", diff)
	}
}

func TestJudgeEstimate(t *testing.T) {
	least, most := budget{bound: 0.95, atLeast: true}, budget{bound: 5}
	for name, tc := range map[string]struct {
		budget budget
		got    estimate
		want   string
		missed int
	}{
		"the median keeps it":           {least, estimate{1, 0.8, 1.1}, "1.00 (0.80..1.10) >= 0.95  kept", 0},
		"the interval reaches it":       {least, estimate{0.9, 0.8, 1}, "0.90 (0.80..1.00) >= 0.95  kept within the spread", 0},
		"the whole interval misses it":  {least, estimate{0.9, 0.8, 0.94}, "0.90 (0.80..0.94) >= 0.95  MISSED", 1},
		"the interval begins below it":  {most, estimate{6, 4, 7}, "6.00 (4.00..7.00) <= 5  kept within the spread", 0},
		"the whole interval is over it": {most, estimate{6, 5.5, 7}, "6.00 (5.50..7.00) <= 5  MISSED", 1},
		"there is no figure":            {least, estimateMedian(nil), "NaN (NaN..NaN) >= 0.95  MISSED", 1},
	} {
		var budgets ledger
		if got := budgets.judgeEstimate("a", tc.budget, tc.got); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
		if len(budgets.missed) != tc.missed || budgets.judged != 1 {
			t.Errorf("%s: %d of %d are missed", name, len(budgets.missed), budgets.judged)
		}
	}
}
