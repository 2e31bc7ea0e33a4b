package traffic

import (
	"iter"
	"math"
)

// Counts is how many frames and bytes were seen. Packets are frames at the XDP hook; bytes run from the
// Ethernet header without FCS. The arithmetic saturates at math.MaxUint64 and at zero, it never wraps.
type Counts struct {
	Packets uint64
	Bytes   uint64
}

// Plus returns the sum.
func (c Counts) Plus(d Counts) Counts {
	return Counts{Packets: add(c.Packets, d.Packets), Bytes: add(c.Bytes, d.Bytes)}
}

// Since returns what was counted after prev. A field that fell counts as no growth.
func (c Counts) Since(prev Counts) Counts {
	return Counts{Packets: sub(c.Packets, prev.Packets), Bytes: sub(c.Bytes, prev.Bytes)}
}

// Max returns the larger of each field.
func (c Counts) Max(d Counts) Counts {
	return Counts{Packets: max(c.Packets, d.Packets), Bytes: max(c.Bytes, d.Bytes)}
}

// IsZero reports that nothing was counted.
func (c Counts) IsZero() bool { return c == Counts{} }

// Totals holds the counts of every class, indexed by Class. The zero value is empty. It is a value: copies are
// independent, == compares.
type Totals [NumClasses]Counts

// Plus returns the sum, class by class.
func (t Totals) Plus(u Totals) Totals {
	for c := range t {
		t[c] = t[c].Plus(u[c])
	}
	return t
}

// Since returns what was counted after prev, class by class. A class that fell counts as no growth.
func (t Totals) Since(prev Totals) Totals {
	for c := range t {
		t[c] = t[c].Since(prev[c])
	}
	return t
}

// Max returns the larger of each class and field. Of two readings of counters that never fall, each possibly
// out of date, it is the best that is known.
func (t Totals) Max(u Totals) Totals {
	for c := range t {
		t[c] = t[c].Max(u[c])
	}
	return t
}

// IsZero reports that nothing was counted in any class.
func (t *Totals) IsZero() bool { return *t == Totals{} }

// Sum returns the counts of all classes together.
func (t *Totals) Sum() Counts {
	var s Counts
	for _, c := range t {
		s = s.Plus(c)
	}
	return s
}

// NonZero yields the classes in which something was counted, in the order of their slots.
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
