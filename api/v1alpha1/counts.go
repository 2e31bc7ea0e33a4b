package v1alpha1

import (
	"cmp"
	"math"
	"slices"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// CountsOf returns the non-zero classes in the order of their slots.
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

// RatesOf returns the rates that stand beside the counts. A class that this version does not know counts as Other;
// negative numbers count as zero.
func RatesOf(counts Counts) traffic.Rates {
	var rates traffic.Rates
	AddRates(&rates, counts)
	return rates
}

// AddRates adds what RatesOf returns. Its cost is that of the classes that are told, not of all that there are.
func AddRates(rates *traffic.Rates, counts Counts) {
	for _, c := range counts {
		class := classOf(c)
		rates[class] = rates[class].Plus(c.rate())
	}
}

// WithoutRates returns the counts alone.
func WithoutRates(counts Counts) Counts {
	counts = slices.Clone(counts)
	for i := range counts {
		counts[i].PPS, counts[i].BPS = 0, 0
	}
	return counts
}

// TotalsOf is the inverse of CountsOf. A class that this version does not know counts as Other, so that the sum
// stays right; negative numbers count as zero.
func TotalsOf(counts Counts) traffic.Totals {
	var t traffic.Totals
	AddCounts(&t, counts)
	return t
}

// AddCounts adds what TotalsOf returns. Its cost is that of the classes that are told, not of all that there are.
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

// FamiliesOf returns the families in which something was counted, in their fixed order.
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

// ProtocolsOf returns the protocols that were counted and their rates, the most packets first.
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

// Int64 converts a count to the API's integers, saturating.
func Int64(n uint64) int64 {
	return int64(min(n, math.MaxInt64))
}

// WithoutTotals returns the status without what changes by mere traffic and time: what is left is the state, whose
// change is news.
func (s XDPNodeStateStatus) WithoutTotals() XDPNodeStateStatus {
	s.ReportTime, s.NextReportTime, s.ReportBytes = nil, nil, 0
	s.Interfaces = slices.Clone(s.Interfaces)
	for i := range s.Interfaces {
		s.Interfaces[i].Counts = nil
	}
	s.Accounts = slices.Clone(s.Accounts)
	for i, account := range s.Accounts {
		s.Accounts[i] = CounterAccount{UID: account.UID, Generation: account.Generation}
	}
	return s
}
