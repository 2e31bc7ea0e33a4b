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
	busy, quiet := reportTimeouts(interval)
	if slices.ContainsFunc(accounts, func(a CounterAccount) bool { return a.Rate() != traffic.Rate{} }) {
		return reported.Add(busy)
	}
	return reported.Add(quiet)
}

// reportTimeouts returns after how much time without a report an agent is late: with traffic, and without.
func reportTimeouts(interval time.Duration) (busy, quiet time.Duration) {
	return 2*interval + ReportTolerance, 2 * HeartbeatInterval(interval)
}

// ReportTimeout returns how long after its latest report the agent is late if it does not report again. It is the difference
// of status.nextReportTime and status.reportTime, which are both of the agent's clock, so it is right if that clock is wrong.
// It is limited to what ReportInterval allows, so that no report makes its agent late at once, or never. If the report does
// not say when the next one is due, it is the longest time that is allowed.
func (s *XDPNodeState) ReportTimeout() time.Duration {
	busy, quiet := reportTimeouts(s.ReportInterval())
	reported, next := s.Status.ReportTime, s.Status.NextReportTime
	if reported == nil || next == nil {
		return quiet
	}
	return min(max(next.Sub(reported.Time), busy), quiet)
}

// ReportStoredAt returns when the API server stored the latest report, by the clock of the API server and in whole seconds. It
// is zero if that is not known. Source: metadata.managedFields; the API server sets the time of an entry whenever its manager
// changes a value, and each report changes status.reportTime. Several API servers are assumed to have the same time.
func (s *XDPNodeState) ReportStoredAt() time.Time {
	var stored time.Time
	for _, entry := range s.ManagedFields {
		if entry.Subresource == "status" && entry.Time != nil && entry.Time.After(stored) {
			stored = entry.Time.Time
		}
	}
	return stored
}

// LastReported returns when the agent last reported: ReportStoredAt, or status.reportTime, which is of the agent's clock, if
// that is not known. Zero: the agent has never reported.
func (s *XDPNodeState) LastReported() time.Time {
	reported := s.Status.ReportTime
	if reported == nil {
		return time.Time{}
	}
	if stored := s.ReportStoredAt(); !stored.IsZero() {
		return stored
	}
	return reported.Time
}

// SpecUpdateTime returns when the controller wrote the present spec, by the clock of that controller.
func (s *XDPNodeState) SpecUpdateTime() time.Time {
	if t := s.Spec.UpdateTime; t != nil {
		return t.Time
	}
	return s.CreationTimestamp.Time
}
