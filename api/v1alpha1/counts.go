// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"cmp"
	"math"
	"slices"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// CountsOf returns the classes that are not zero, in the order of their slots.
func CountsOf(t traffic.Totals) Counts {
	var counts Counts
	for class, c := range t.NonZero() {
		counts = append(counts, ClassCounts{Class: class.String(), Packets: Int64(c.Packets), Bytes: Int64(c.Bytes)})
	}
	return counts
}

// CountsAndRatesOf is CountsOf with the rate of each class.
func CountsAndRatesOf(t traffic.Totals, rates traffic.Rates) Counts {
	counts := CountsOf(t)
	i := 0
	for class := range t.NonZero() {
		counts[i].PPS, counts[i].BPS = Int64(rates[class].PacketsPerSecond), Int64(rates[class].BitsPerSecond)
		i++
	}
	return counts
}

// RatesOf returns the rates of the counts. An unknown class counts as Other. Negative numbers count as zero.
func RatesOf(counts Counts) traffic.Rates {
	var rates traffic.Rates
	AddRates(&rates, counts)
	return rates
}

// AddRates adds what RatesOf returns. Its cost depends on the number of entries, not on the number of all classes.
func AddRates(rates *traffic.Rates, counts Counts) {
	for _, c := range counts {
		class := classOf(c)
		rates[class] = rates[class].Plus(c.rate())
	}
}

// WithoutRates returns the counts without their rates.
func WithoutRates(counts Counts) Counts {
	counts = slices.Clone(counts)
	for i := range counts {
		counts[i].PPS, counts[i].BPS = 0, 0
	}
	return counts
}

// TotalsOf is the inverse of CountsOf. An unknown class, of a newer version, counts as Other, so that the sum is right.
// Negative numbers count as zero.
func TotalsOf(counts Counts) traffic.Totals {
	var t traffic.Totals
	AddCounts(&t, counts)
	return t
}

// AddCounts adds what TotalsOf returns. Its cost depends on the number of entries, not on the number of all classes.
func AddCounts(t *traffic.Totals, counts Counts) {
	for _, c := range counts {
		class := classOf(c)
		t[class] = t[class].Plus(c.counts())
	}
}

func (c ClassCounts) counts() traffic.Counts {
	return traffic.Counts{Packets: uint64(max(c.Packets, 0)), Bytes: uint64(max(c.Bytes, 0))}
}

func (c ClassCounts) rate() traffic.Rate {
	return traffic.Rate{PacketsPerSecond: uint64(max(c.PPS, 0)), BitsPerSecond: uint64(max(c.BPS, 0))}
}

func classOf(c ClassCounts) traffic.Class {
	if class, ok := traffic.ParseClass(c.Class); ok {
		return class
	}
	return traffic.ClassOther
}

// FamiliesOf returns the families that have counts, in their fixed order.
func FamiliesOf(t traffic.Totals) []FamilyCounts {
	var families []FamilyCounts
	byFamily := t.ByFamily()
	for _, f := range traffic.Families() {
		if c := byFamily[f]; !c.IsZero() {
			families = append(families, FamilyCounts{Family: f.String(), Packets: Int64(c.Packets), Bytes: Int64(c.Bytes)})
		}
	}
	return families
}

// ProtocolsOf returns the protocols that have counts, with their rates, sorted by packets, the largest first.
func ProtocolsOf(t traffic.Totals, rates traffic.Rates) []ProtocolCounts {
	var protocols []ProtocolCounts
	for class, c := range t.NonZero() {
		p := ProtocolCounts{
			Family:   class.Family().String(),
			Protocol: class.Protocol(),
			Packets:  Int64(c.Packets),
			Bytes:    Int64(c.Bytes),

			PacketsPerSecond: Int64(rates[class].PacketsPerSecond),
			BitsPerSecond:    Int64(rates[class].BitsPerSecond),
		}
		if n, ok := class.Number(); ok {
			number := int32(n)
			p.Number = &number
		}
		protocols = append(protocols, p)
	}
	slices.SortStableFunc(protocols, func(a, b ProtocolCounts) int { return cmp.Compare(b.Packets, a.Packets) })
	return protocols
}

// TotalsOfProtocols is the inverse of ProtocolsOf, without the rates.
func TotalsOfProtocols(protocols []ProtocolCounts) traffic.Totals {
	counts := make(Counts, 0, len(protocols))
	for _, p := range protocols {
		class := p.Family
		if p.Number != nil {
			class += "/" + p.Protocol
		}
		counts = append(counts, ClassCounts{Class: class, Packets: p.Packets, Bytes: p.Bytes})
	}
	return TotalsOf(counts)
}

// Int64 converts a count to an integer of the API. A larger value becomes the largest integer.
func Int64(n uint64) int64 {
	return int64(min(n, math.MaxInt64))
}

// WithoutTotals returns the status without the fields that change with traffic and time. A change of what remains is
// reported at once. switchedOff is left out too: it changes only together with the attachment, and an API server with an earlier
// CRD does not store it, so that it would be reported again and again.
func (s XDPNodeStateStatus) WithoutTotals() XDPNodeStateStatus {
	s.ReportTime, s.NextReportTime, s.ReportBytes = nil, nil, 0
	s.Interfaces = slices.Clone(s.Interfaces)
	for i := range s.Interfaces {
		s.Interfaces[i].Counts, s.Interfaces[i].SwitchedOff = nil, nil
	}
	s.Accounts = slices.Clone(s.Accounts)
	for i, account := range s.Accounts {
		s.Accounts[i] = CounterAccount{UID: account.UID, Generation: account.Generation}
	}
	return s
}
