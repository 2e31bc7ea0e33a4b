// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// reportTimes remembers when this process first saw the latest report of each agent, by its own clock. Whether an agent is late
// follows from these times only: the clocks of nodes, API servers and other controllers may be wrong by hours, so their times
// are compared for equality and in differences of two times of one clock, never with the time of this process. Two times of one
// process differ by the time between them even if its clock is set (package time, "Monotonic Clocks").
//
// A controller that starts, or that takes over from another replica, measures from then on: during an outage of the API server,
// which ends the active controller, no agent could report. An agent that was late before stays late until it reports, if an
// XDPCounter lists it (start). status.failures has ten entries at most. What it does not list is in the state of its last report,
// until the time of that report has passed once more.
//
// The zero value is ready to use, by several goroutines. It takes about 250 bytes for each node state.
type reportTimes struct {
	mu      sync.Mutex
	seen    map[types.UID]sighting // by UID of the node state; replaced, never changed
	started bool
}

// sighting is what this process knows about the latest report of one agent. Times are of the clock of this process, except
// those that identify something.
type sighting struct {
	at   time.Time // when the report was first seen; without a report, when the node state was
	due  time.Time // the agent is late from then on, because it has not reported
	gone time.Time // the agent is late from then on, because its node is unreachable; zero if it is not for this reason

	report      time.Time // identifies the report: status.reportTime, which changes with each report and with nothing else
	unreachable time.Time // identifies what unreachableSince returned, zero if the node was reachable
	owes        bool      // the agent has yet to follow the spec
}

// look returns for each node state, by UID, when its report was first seen. It records what was not seen before, and forgets
// node states that do not exist any more.
func (r *reportTimes) look(nodes []corev1.Node, states []v1alpha1.XDPNodeState, now time.Time) map[types.UID]sighting {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = lookAgain(r.seen, nodes, states, now)
	return r.seen
}

func lookAgain(before map[types.UID]sighting, nodes []corev1.Node, states []v1alpha1.XDPNodeState, now time.Time) map[types.UID]sighting {
	unreachable := unreachableNodes(nodes)
	seen := make(map[types.UID]sighting, len(states))
	for i := range states {
		state := &states[i]
		seen[state.UID] = before[state.UID].withReport(state, now).withNode(unreachable[state.Name], now)
	}
	return seen
}

// hasStarted reports whether start was called.
func (r *reportTimes) hasStarted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.started
}

// start forgets everything, looks, and makes agents late that the counters list as late.
func (r *reportTimes) start(counters []v1alpha1.XDPCounter, nodes []corev1.Node, states []v1alpha1.XDPNodeState, now time.Time) {
	listed := map[string]string{} // reasons by node
	for i := range counters {
		for _, f := range counters[i].Status.Failures {
			if f.Reason == v1alpha1.ReasonAgentNotReporting || f.Reason == v1alpha1.ReasonNodeUnreachable {
				listed[f.Node] = f.Reason
			}
		}
	}
	seen := lookAgain(nil, nodes, states, now)
	for i := range states {
		s := seen[states[i].UID]
		switch listed[states[i].Name] {
		case v1alpha1.ReasonAgentNotReporting:
			s.due = now
		case v1alpha1.ReasonNodeUnreachable:
			s.gone = now // until look sees that the node is back
		}
		seen[states[i].UID] = s
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started, r.seen = true, seen
}

// withReport returns the sighting after a look at the node state.
func (s sighting) withReport(state *v1alpha1.XDPNodeState, now time.Time) sighting {
	var report time.Time
	if t := state.Status.ReportTime; t != nil {
		report = t.Time
	}
	owes := state.Status.ObservedGeneration != state.Generation
	switch {
	case s.at.IsZero() || !s.report.Equal(report):
		s = sighting{at: now, due: now.Add(state.ReportTimeout()), report: report, unreachable: s.unreachable}
		if owes {
			s.due = now.Add(v1alpha1.SpecAckTimeout)
		}
	case owes && !s.owes && now.Before(s.due): // an agent that is late stays late until it reports
		s.due = now.Add(v1alpha1.SpecAckTimeout)
	}
	s.owes = owes
	return s
}

// withNode returns the sighting after a look at the node. unreachable is the result of unreachableSince. If the agent reports
// after that, it runs, even if its kubelet does not: withReport clears gone.
func (s sighting) withNode(unreachable, now time.Time) sighting {
	switch {
	case unreachable.IsZero():
		s.gone = time.Time{}
	case !unreachable.Equal(s.unreachable):
		s.gone = now.Add(v1alpha1.ReportTolerance)
	}
	s.unreachable = unreachable
	return s
}

// lateFrom returns when the agent is late if it does not report again and its node stays as it is.
func (s sighting) lateFrom() time.Time {
	if s.becauseUnreachable() {
		return s.gone
	}
	return s.due
}

// late reports whether the agent is late.
func (s sighting) late(now time.Time) bool { return !now.Before(s.lateFrom()) }

// becauseUnreachable reports whether lateFrom returns when the agent is late because its node is unreachable.
func (s sighting) becauseUnreachable() bool { return !s.gone.IsZero() && s.gone.Before(s.due) }

// untilNextLate returns after how much time the next agent is late if it does not report, zero if all are late already.
func untilNextLate(seen map[types.UID]sighting, now time.Time) time.Duration {
	var wait time.Duration
	for _, s := range seen {
		if left := s.lateFrom().Sub(now); left > 0 && (wait == 0 || left < wait) {
			wait = left
		}
	}
	return wait
}
