// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// Account returns what the counter with the UID has counted on this node, nil if it has no account here.
func (s *XDPNodeState) Account(uid types.UID) *CounterAccount {
	i := slices.IndexFunc(s.Status.Accounts, func(a CounterAccount) bool { return a.UID == uid })
	if i < 0 {
		return nil
	}
	return &s.Status.Accounts[i]
}

// Entry returns the entry of the counter with the UID, nil if the spec has none.
func (s *XDPNodeStateSpec) Entry(uid types.UID) *NodeCounter {
	i := slices.IndexFunc(s.Counters, func(c NodeCounter) bool { return c.UID == uid })
	if i < 0 {
		return nil
	}
	return &s.Counters[i]
}

// Sum returns the frames and bytes of all classes.
func (a *CounterAccount) Sum() traffic.Counts {
	var sum traffic.Counts
	for _, c := range a.Counts {
		sum = sum.Plus(c.counts())
	}
	return sum
}

// Rate returns the rates of all classes.
func (a *CounterAccount) Rate() traffic.Rate {
	var sum traffic.Rate
	for _, c := range a.Counts {
		sum = sum.Plus(c.rate())
	}
	return sum
}

// Follows reports whether the node's agent works by the counter's present spec.
func (s *XDPNodeState) Follows(c *XDPCounter) bool {
	if entry := s.Spec.Entry(c.UID); entry == nil || entry.Generation != c.Generation {
		return false
	}
	if s.Status.ObservedGeneration == s.Generation {
		return true
	}
	account := s.Account(c.UID) // the node state may have changed for another counter's sake
	return account != nil && account.Generation == c.Generation
}

const (
	// SpecAckTimeout is how long an agent may take to report that it follows a changed spec. A node that has just joined
	// still has to pull the image.
	SpecAckTimeout = 3 * time.Minute
	// ReportTolerance is how late a report may be.
	ReportTolerance = time.Minute
)

// HeartbeatInterval is how often an agent writes its status while nothing changes and no packet is counted: every tenth
// interval, but at most once a minute.
func HeartbeatInterval(reportInterval time.Duration) time.Duration {
	return max(time.Minute, 10*reportInterval)
}

// ReportInterval returns how often the agent reports while the totals change: the interval of the spec, doubled until
// reports of status.reportBytes stay within spec.reportBytesPerSecond.
func (s *XDPNodeState) ReportInterval() time.Duration {
	interval := s.Spec.ReportInterval.Duration
	if interval <= 0 || s.Spec.ReportBytesPerSecond <= 0 {
		return interval
	}
	for interval.Seconds()*float64(s.Spec.ReportBytesPerSecond) < float64(s.Status.ReportBytes) {
		interval *= 2
	}
	return interval
}

// NextReportTime returns when the report after this one is due at the latest. After a report with traffic the next one is
// due after the interval, since at least its rates differ; after a report without traffic a heartbeat is due.
func NextReportTime(reported time.Time, interval time.Duration, accounts []CounterAccount) time.Time {
	moving := slices.ContainsFunc(accounts, func(a CounterAccount) bool { return a.Rate() != traffic.Rate{} })
	if moving {
		return reported.Add(2*interval + ReportTolerance)
	}
	return reported.Add(2 * HeartbeatInterval(interval))
}

// ReportDeadline returns when the agent counts as late if it does not report before: status.nextReportTime, or while the
// agent has yet to follow a changed spec, SpecAckTimeout after the change.
func (s *XDPNodeState) ReportDeadline() time.Time {
	last := s.LastReported()
	switch {
	case s.Status.ObservedGeneration != s.Generation:
		if updated := s.SpecUpdateTime(); updated.After(last) {
			last = updated
		}
		return last.Add(SpecAckTimeout)
	case s.Status.NextReportTime == nil: // written by an agent that does not know the field
		return last.Add(2 * HeartbeatInterval(s.Spec.ReportInterval.Duration))
	default:
		return s.Status.NextReportTime.Time
	}
}

// Late reports whether the agent should have reported before now and has not.
func (s *XDPNodeState) Late(now time.Time) bool { return now.After(s.ReportDeadline()) }

// LastReported returns when the agent last reported. If it never has, when its node state was created.
func (s *XDPNodeState) LastReported() time.Time {
	if t := s.Status.ReportTime; t != nil {
		return t.Time
	}
	return s.CreationTimestamp.Time
}

// SpecUpdateTime returns when the controller wrote the present spec.
func (s *XDPNodeState) SpecUpdateTime() time.Time {
	if t := s.Spec.UpdateTime; t != nil {
		return t.Time
	}
	return s.CreationTimestamp.Time
}
