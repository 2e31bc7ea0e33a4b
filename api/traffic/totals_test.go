// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"math"
	"slices"
	"testing"
)

func TestCountsArithmetic(t *testing.T) {
	const most = math.MaxUint64
	for name, tc := range map[string]struct{ got, want Counts }{
		"Plus adds each field":                          {Counts{1, 60}.Plus(Counts{2, 70}), Counts{3, 130}},
		"Plus saturates at the largest number":          {Counts{most, most - 1}.Plus(Counts{1, 2}), Counts{most, most}},
		"Since subtracts each field":                    {Counts{5, 500}.Since(Counts{2, 200}), Counts{3, 300}},
		"Since returns zero for a field that decreased": {Counts{5, 100}.Since(Counts{2, 200}), Counts{3, 0}},
		"Max returns the larger value of each field":    {Counts{5, 100}.Max(Counts{2, 200}), Counts{5, 200}},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %v, want %v", name, tc.got, tc.want)
		}
	}
}

func TestTotalsArithmetic(t *testing.T) {
	var a, b Totals
	a[IP(IPv4, 6)] = Counts{10, 600}
	a[ClassARP] = Counts{1, 42}
	b[IP(IPv4, 6)] = Counts{4, 240}
	b[IP(IPv6, 6)] = Counts{2, 148}

	sum := a.Plus(b)
	if got, want := sum.Sum(), (Counts{17, 1030}); got != want {
		t.Errorf("sum of all classes is %v, want %v", got, want)
	}
	if got := sum.Since(b); got != a {
		t.Error("Since does not undo Plus")
	}
	var classes []Class
	for c := range sum.NonZero() {
		classes = append(classes, c)
	}
	if want := []Class{IP(IPv4, 6), IP(IPv6, 6), ClassARP}; !slices.Equal(classes, want) {
		t.Errorf("non-zero classes are %v, want %v", classes, want)
	}
	families := sum.ByFamily()
	if want := [...]Counts{IPv4: {14, 840}, IPv6: {2, 148}, ARP: {1, 42}, Other: {}, Malformed: {}}; families != want {
		t.Errorf("by family: %v, want %v", families, want)
	}
	if got := a.Max(b); got[IP(IPv4, 6)] != (Counts{10, 600}) || got[IP(IPv6, 6)] != (Counts{2, 148}) {
		t.Errorf("Max returns %v", got)
	}
	var none Totals
	if !none.IsZero() || sum.IsZero() {
		t.Error("IsZero is true for totals that are not empty, or false for empty ones")
	}
}
