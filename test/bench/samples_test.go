// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestCosts(t *testing.T) {
	var s samples
	for c, loads := range map[column][]float64{
		column(empty): {9, 10, 11},
		column(xdp1):  {15, 14, 16},
		column(limit): {11, 11, 11},
		column(plain): {13, 12, 14},
		onPlainIPv6:   {16, 16, 16},
	} {
		for load, ns := range loads {
			s.add(c, load, ns)
			s.add(c, load, ns)
			s.add(c, load, ns+100) // somebody else ran
		}
	}
	got := s.costs()
	nan := math.NaN()
	want := costs{
		empty:      {ns: 10, low: 9, high: 11, toXDP1: 2},
		xdp1:       {ns: 5, low: 4, high: 6, toXDP1: 1},
		limit:      {ns: 1, low: 1, high: 1, toXDP1: 0.2},
		plain:      {ns: 3, low: 2, high: 4, toXDP1: 0.6},
		jumbo:      {ns: nan, low: nan, high: nan, toXDP1: nan},
		generic:    {ns: nan, low: nan, high: nan, toXDP1: nan},
		wireKfunc:  {ns: nan, low: nan, high: nan, toXDP1: nan},
		wireHelper: {ns: nan, low: nan, high: nan, toXDP1: nan},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(cost{}), cmpopts.EquateNaNs(), cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Errorf("costs (-want +got):\n%s", diff)
	}
	if got := s.over(onPlainIPv6); got != 6 {
		t.Errorf("on plain IPv6 it is %v, want 6", got)
	}
}

func TestUnsettled(t *testing.T) {
	for name, tc := range map[string]struct {
		empty []float64
		want  bool
	}{
		"all alike":                              {[]float64{10, 10, 10.5, 11}, false},
		"as different as their places make them": {[]float64{10, 11, 11.9, 11.9}, false},
		"a quarter of them disturbed":            {[]float64{10, 10, 10, 19}, false},
		"half of them disturbed":                 {[]float64{10, 10, 18, 19}, true},
	} {
		var s samples
		for load, ns := range tc.empty {
			s.add(column(empty), load, ns)
		}
		if got := s.unsettled(); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
