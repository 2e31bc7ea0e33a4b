package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/cmd/internal/display"
)

// sample is what was counted up to one instant.
type sample struct {
	time       time.Time
	interfaces []counted                        // those to be shown
	totals     map[traffic.MapID]traffic.Totals // of every map, also of those not to be shown
}

// counted is an interface that is or was counted.
type counted struct {
	name string
	mode plan.Mode
	gone bool // the interface, or the program from it: the totals stand still, name and mode are what they were last
	id   traffic.MapID
}

// look puts together what was gathered. Of what is attached it shows the interfaces that are selected, all if none is
// named, and what was shown before.
func look(at time.Time, selected []string, attached []plan.Attachment, readings []traffic.Reading, interfaces []plan.Interface, before sample) sample {
	s := sample{time: at, totals: map[traffic.MapID]traffic.Totals{}}
	ids := map[uint32]traffic.MapID{}
	for _, r := range readings {
		s.totals[r.Map] = r.Totals
		ids[r.Map.ID] = r.Map
	}
	for _, a := range attached {
		id, ok := ids[a.Map]
		if !ok {
			continue // came or went between the two looks at it
		}
		known := slices.IndexFunc(before.interfaces, func(c counted) bool { return c.id == id })
		i := byIndex(interfaces, a.Index)
		switch {
		case a.Live(i) && (known >= 0 || len(selected) == 0 || slices.Contains(selected, i.Name)):
			s.interfaces = append(s.interfaces, counted{name: i.Name, mode: i.Hook.Mode, id: id})
		case !a.Live(i) && known >= 0:
			c := before.interfaces[known]
			c.gone = true
			s.interfaces = append(s.interfaces, c)
		}
	}
	return s
}

// allGone reports that nothing is counted any more.
func (s sample) allGone() bool {
	return !slices.ContainsFunc(s.interfaces, func(c counted) bool { return !c.gone })
}

// report is one print: of an interval, or at the end of the whole run.
type report struct {
	time     time.Time // of its end
	elapsed  time.Duration
	summary  bool
	sections []section // one per interface
}

type section struct {
	counted
	all     traffic.Counts // since the counting began
	allRate display.Rate
	classes []class // those with packets, the one with the most first
}

// class is one line of a section.
type class struct {
	class  traffic.Class
	counts traffic.Counts // since the counting began
	rate   display.Rate
}

// measure returns what there is to tell of the time between two samples. A map that only the later one knows was made
// in between.
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
