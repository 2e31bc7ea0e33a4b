// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/cmd/internal/display"
)

// sample holds the counts at one time.
type sample struct {
	time       time.Time
	interfaces []counted                        // the interfaces to show
	totals     map[traffic.MapID]traffic.Totals // of all maps, including those that are not shown
}

// counted is an interface that is counted, or was counted before.
type counted struct {
	name string
	mode plan.Mode
	gone bool // the interface was deleted, or the program was detached; the other fields keep their last values

	// aggregates is set if several frames that arrive as one aggregate count as one packet.
	aggregates bool

	id traffic.MapID
}

// newSample returns the sample of the given data. It shows the attached interfaces that are selected, or all of them if none
// is selected, and those that were shown before.
func newSample(at time.Time, selected []string, attached []plan.Attachment, readings []traffic.Reading, interfaces []plan.Interface, before sample) sample {
	s := sample{time: at, totals: map[traffic.MapID]traffic.Totals{}}
	ids := map[uint32]traffic.MapID{}
	for _, r := range readings {
		s.totals[r.Map] = r.Totals
		ids[r.Map.ID] = r.Map
	}
	for _, a := range attached {
		id, ok := ids[a.Map]
		if !ok {
			continue // attached or detached between the two calls
		}
		known := slices.IndexFunc(before.interfaces, func(c counted) bool { return c.id == id })
		i := byIndex(interfaces, a.Index)
		switch {
		case a.Live(i) && (known >= 0 || len(selected) == 0 || slices.ContainsFunc(selected, i.HasName)):
			s.interfaces = append(s.interfaces, counted{
				name: i.Name, mode: i.Hook.Mode, id: id, aggregates: a.CountsAggregates && i.Hook.Mode == plan.Generic,
			})
		case !a.Live(i) && known >= 0:
			c := before.interfaces[known]
			c.gone = true
			s.interfaces = append(s.interfaces, c)
		}
	}
	return s
}

// allGone reports whether no interface is counted any more.
func (s sample) allGone() bool {
	return !slices.ContainsFunc(s.interfaces, func(c counted) bool { return !c.gone })
}

// report is the content of one output: of an interval, or of the whole run.
type report struct {
	time     time.Time // end of the interval
	elapsed  time.Duration
	summary  bool
	sections []section // one per interface
}

type section struct {
	counted
	all     traffic.Counts // since counting began
	allRate display.Rate
	classes []class // classes with packets, sorted by packets, the largest first
}

// class is one line of a section.
type class struct {
	class  traffic.Class
	counts traffic.Counts // since counting began
	rate   display.Rate
}

// measure returns the report of the time between two samples. The counts of a map that is not in the first sample started at
// zero.
func measure(from, to sample) report {
	r := report{time: to.time, elapsed: to.time.Sub(from.time)}
	for _, i := range to.interfaces {
		totals, before := to.totals[i.id], from.totals[i.id]
		growth := totals.Since(before)
		s := section{counted: i, all: totals.Sum(), allRate: display.RateOf(growth.Sum(), r.elapsed)}
		for c, counts := range totals.NonZero() {
			s.classes = append(s.classes, class{class: c, counts: counts, rate: display.RateOf(growth[c], r.elapsed)})
		}
		slices.SortStableFunc(s.classes, func(a, b class) int {
			return cmp.Or(cmp.Compare(b.counts.Packets, a.counts.Packets), cmp.Compare(b.counts.Bytes, a.counts.Bytes))
		})
		r.sections = append(r.sections, s)
	}
	return r
}
