// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/cmd/internal/display"
)

// reports holds the last two reports of one node. Its rates are computed from these, because each report has its time. The
// totals in the status of an XDPCounter add up reports of different times, so that rates cannot be computed from them.
type reports struct {
	last     *v1alpha1.XDPNodeState
	before   *v1alpha1.XDPNodeState // nil until the second report is received
	received time.Time              // when the last report was received, by the clock that span gets the time from
}

// next returns the reports after an update of the node state, which may have the same report as before.
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
		// A change of state is reported at once. Rates over such a short time are not accurate.
		return reports{last: state, before: r.before, received: received}
	default:
		return reports{last: state, before: r.last, received: received}
	}
}

// span is the time over which rates are computed.
type span int

const (
	unknown span = iota // only one report has been received
	between             // between the last two reports
	quiet               // since the last report. Nothing was counted, because a node reports while its totals change
)

// quietIntervals is the number of intervals without a report after which the rate of a node is zero.
const quietIntervals = 2.5

func (r reports) span(now time.Time) span {
	switch {
	case now.Sub(r.received) > time.Duration(quietIntervals*float64(r.last.ReportInterval())):
		return quiet
	case r.before == nil:
		return unknown
	default:
		return between
	}
}

// growth is the increase of totals in the elapsed time.
type growth struct {
	totals  traffic.Totals
	elapsed time.Duration
}

// rate returns the rate of one class.
func (g growth) rate(c traffic.Class) display.Rate { return display.RateOf(g.totals[c], g.elapsed) }

func (r reports) elapsed() time.Duration {
	return r.last.Status.ReportTime.Sub(r.before.Status.ReportTime.Time)
}

// ofCounter returns the growth of a counter's account. ok is false if it is unknown.
func (r reports) ofCounter(uid types.UID, now time.Time) (g growth, ok bool) {
	switch r.span(now) {
	case unknown:
		return growth{}, false
	case between:
		g.elapsed = r.elapsed()
		if is := r.last.Account(uid); is != nil {
			g.totals = v1alpha1.TotalsOf(is.Counts)
		}
		if was := r.before.Account(uid); was != nil { // otherwise the account is new and started at zero
			g.totals = g.totals.Since(v1alpha1.TotalsOf(was.Counts))
		}
	case quiet:
	}
	return g, true
}

// ofInterface returns the growth on an interface of the last report. ok is false if it is unknown.
func (r reports) ofInterface(i v1alpha1.NodeInterface, now time.Time) (g growth, ok bool) {
	switch r.span(now) {
	case unknown:
		return growth{}, false
	case between:
		g.elapsed = r.elapsed()
		g.totals = v1alpha1.TotalsOf(i.Counts)
		for _, was := range r.before.Status.Interfaces {
			if was.Map == i.Map && bootOf(r.before) == bootOf(r.last) { // otherwise the map is new and started at zero
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
