// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// column is what a measurement belongs to: a contender, or ours on plain UDP over IPv6.
type column int

const (
	onPlainIPv6 = column(contenders)
	columns     = contenders + 1
)

// samples are measurements in ns per packet, by column, load of the program and round.
type samples [columns][][]float64

// add books a measurement of the load of this index.
func (s *samples) add(c column, load int, ns float64) {
	for len(s[c]) <= load {
		s[c] = append(s[c], nil)
	}
	s[c][load] = append(s[c][load], ns)
}

// cost is what a program takes for a frame.
type cost struct {
	ns        float64 // over the empty program; of that one absolute
	low, high float64 // of the cheapest and of the dearest load
	toXDP1    float64 // ratio of ns
}

// loads returns the spread over the loads.
func (c cost) loads() string {
	return fmt.Sprintf("%.1f..%.1f", c.low, c.high)
}

// costs are those of all programs for one frame.
type costs [contenders]cost

// costs sums up, first the rounds of each load, then the loads: of those the median, since the place in memory of its
// machine code makes a program 1 ns faster or slower, and more. What was not measured is NaN.
func (s *samples) costs() costs {
	over := func(c column) float64 {
		if c == column(empty) {
			return s.median(c)
		}
		return s.over(c)
	}
	var all costs
	for i := range all {
		c := column(i)
		base := over(c) - s.median(c)
		all[i] = cost{
			ns:     over(c),
			low:    quantile(0, s.loads(c)) + base,
			high:   quantile(1, s.loads(c)) + base,
			toXDP1: over(c) / over(column(xdp1)),
		}
	}
	return all
}

// over returns what a column takes over the empty program.
func (s *samples) over(c column) float64 { return s.median(c) - s.median(column(empty)) }

// unsettled reports whether more than a quarter of the loads of the empty program seem to have been disturbed in all their
// turns: their figures are more than a fifth over the least, and their place in memory makes less of a difference.
func (s *samples) unsettled() bool {
	figures := s.loads(column(empty))
	least, n := quantile(0, figures), 0
	for _, f := range figures {
		if f > 1.2*least {
			n++
		}
	}
	return 4*n > len(figures)
}

// loads returns one figure for each load.
func (s *samples) loads(c column) []float64 {
	var all []float64
	for _, rounds := range s[c] {
		all = append(all, undisturbed(rounds))
	}
	return all
}

func (s *samples) median(c column) float64 {
	return median(s.loads(c))
}
