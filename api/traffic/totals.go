// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"iter"
	"math"
)

// Counts is a number of frames and of bytes. Packets are frames at the XDP hook. Bytes are counted from the Ethernet header,
// without FCS. The arithmetic saturates at zero and at math.MaxUint64; it does not wrap.
type Counts struct {
	Packets uint64
	Bytes   uint64
}

// Plus returns the sum.
func (c Counts) Plus(d Counts) Counts {
	return Counts{Packets: add(c.Packets, d.Packets), Bytes: add(c.Bytes, d.Bytes)}
}

// Since returns what was counted after prev. If a field has decreased, its result is zero.
func (c Counts) Since(prev Counts) Counts {
	return Counts{Packets: sub(c.Packets, prev.Packets), Bytes: sub(c.Bytes, prev.Bytes)}
}

// Max returns the larger of each field.
func (c Counts) Max(d Counts) Counts {
	return Counts{Packets: max(c.Packets, d.Packets), Bytes: max(c.Bytes, d.Bytes)}
}

// IsZero reports whether nothing was counted.
func (c Counts) IsZero() bool { return c == Counts{} }

// Totals holds the counts of every class, indexed by Class. The zero value is empty. It is an array: copies are independent,
// and == compares all classes.
type Totals [NumClasses]Counts

// Plus returns the sum of each class.
func (t Totals) Plus(u Totals) Totals {
	for c := range t {
		t[c] = t[c].Plus(u[c])
	}
	return t
}

// Since returns what was counted after prev in each class. If a field has decreased, its result is zero.
func (t Totals) Since(prev Totals) Totals {
	for c := range t {
		t[c] = t[c].Since(prev[c])
	}
	return t
}

// Max returns the larger value of each class and field. Counts never decrease, so of two readings that may be out of date the
// larger values are the newer ones.
func (t Totals) Max(u Totals) Totals {
	for c := range t {
		t[c] = t[c].Max(u[c])
	}
	return t
}

// IsZero reports whether nothing was counted in any class.
func (t *Totals) IsZero() bool { return *t == Totals{} }

// Sum returns the sum of all classes.
func (t *Totals) Sum() Counts {
	var s Counts
	for _, c := range t {
		s = s.Plus(c)
	}
	return s
}

// NonZero yields the classes with non-zero counts, in ascending order.
func (t *Totals) NonZero() iter.Seq2[Class, Counts] {
	return func(yield func(Class, Counts) bool) {
		for c := range t {
			if !t[c].IsZero() && !yield(Class(c), t[c]) {
				return
			}
		}
	}
}

// ByFamily returns the counts of each family, indexed by Family.
func (t *Totals) ByFamily() [numFamilies]Counts {
	var families [numFamilies]Counts
	for class, counts := range t.NonZero() {
		f := class.Family()
		families[f] = families[f].Plus(counts)
	}
	return families
}

func add(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

func sub(a, b uint64) uint64 {
	if a < b {
		return 0
	}
	return a - b
}
