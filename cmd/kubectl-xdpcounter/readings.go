package main

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/cmd/internal/display"
)

// reports are the last two reports of one node, from which its rates follow: exactly, since each report tells when it was
// made. The totals in the status of an XDPCounter are a mixture of reports of different ages, of which no rate can be had.
type reports struct {
	last     *v1alpha1.XDPNodeState
	before   *v1alpha1.XDPNodeState // nil until a second report came
	received time.Time              // by our clock, when the last one came
}

// next returns the reports after one more reading of the node state, which may bear the same report again.
func (r reports) next(state *v1alpha1.XDPNodeState, received time.Time) reports {
	fresh := reports{last: state, received: received}
	if r.last == nil || r.last.UID != state.UID {
		return fresh
	}
	was, is := r.last.Status.ReportTime, state.Status.ReportTime
	switch {
	case was == nil || is == nil || is.Time.Before(was.Time): // the node's clock was set back
		return fresh
	case is.Equal(was):
		return reports{last: state, before: r.before, received: r.received}
	case r.before != nil && is.Sub(was.Time) < state.ReportInterval()/2:
		// A change of state is reported at once: so short a time says little.
		return reports{last: state, before: r.before, received: received}
	default:
		return reports{last: state, before: r.last, received: received}
	}
}

// span is the time that rates are means over.
type span int

const (
	unknown span = iota // there is only one report yet
	between             // the last two reports
	quiet               // since the last report, in which nothing came: a node with more to tell would have told
)

// lateness is after how many intervals without a report nothing is known to have come. A report may be late by a tenth.
const lateness = 2.5

func (r reports) span(now time.Time) span {
	switch {
	case now.Sub(r.received) > time.Duration(lateness*float64(r.last.ReportInterval())):
		return quiet
	case r.before == nil:
		return unknown
	default:
		return between
	}
}

// growth is what came in some time.
type growth struct {
	totals  traffic.Totals
	elapsed time.Duration
}

// rate returns the rate of one class.
func (g growth) rate(c traffic.Class) display.Rate { return display.RateOf(g.totals[c], g.elapsed) }

func (r reports) elapsed() time.Duration {
	return r.last.Status.ReportTime.Sub(r.before.Status.ReportTime.Time)
}

// ofCounter returns what came for a counter. ok is false while that is unknown.
func (r reports) ofCounter(uid types.UID, now time.Time) (g growth, ok bool) {
	switch r.span(now) {
	case unknown:
		return growth{}, false
	case between:
		g.elapsed = r.elapsed()
		if is := r.last.Account(uid); is != nil {
			g.totals = v1alpha1.TotalsOf(is.Counts)
		}
		if was := r.before.Account(uid); was != nil { // else the account was opened in between, with nothing in it
			g.totals = g.totals.Since(v1alpha1.TotalsOf(was.Counts))
		}
	case quiet:
	}
	return g, true
}

// ofInterface returns what came on one of the last report's interfaces. ok is false while that is unknown.
func (r reports) ofInterface(i v1alpha1.NodeInterface, now time.Time) (g growth, ok bool) {
	switch r.span(now) {
	case unknown:
		return growth{}, false
	case between:
		g.elapsed = r.elapsed()
		g.totals = v1alpha1.TotalsOf(i.Counts)
		for _, was := range r.before.Status.Interfaces {
			if was.Map == i.Map && bootOf(r.before) == bootOf(r.last) { // else the map was made in between
				g.totals = g.totals.Since(v1alpha1.TotalsOf(was.Counts))
			}
		}
	case quiet:
	}
	return g, true
}

func bootOf(state *v1alpha1.XDPNodeState) string {
	if state.Status.Agent == nil {
		return ""
	}
	return state.Status.Agent.BootID
}
