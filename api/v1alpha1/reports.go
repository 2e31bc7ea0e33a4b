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
	if told := s.Spec.Entry(c.UID); told == nil || told.Generation != c.Generation {
		return false
	}
	if s.Status.ObservedGeneration == s.Generation {
		return true
	}
	account := s.Account(c.UID) // the node state may have changed for another counter's sake
	return account != nil && account.Generation == c.Generation
}

// An agent owes a report: one that follows its spec, at once or after the delay that the spec has, the next one within an
// interval after one that tells of traffic, and a heartbeat after one that tells of none.
const (
	// FirstWord is how long an agent may take to follow a spec that was changed. A node that has just joined still has to
	// get the image.
	FirstWord = 3 * time.Minute
	// Tolerance is how late a report may be.
	Tolerance = time.Minute
)

// SilentFrom returns when the node's agent counts as silent if no other report of it comes: when what it owes is late.
func (s *XDPNodeState) SilentFrom() time.Time {
	last := s.LastReported()
	if s.Status.ObservedGeneration != s.Generation {
		if told := s.Told(); told.After(last) {
			last = told
		}
		return last.Add(s.Spec.ReportDelay.Duration + FirstWord)
	}
	interval := s.Spec.ReportInterval.Duration
	if s.moving() {
		return last.Add(2*interval + Tolerance)
	}
	return last.Add(2 * HeartbeatInterval(interval))
}

// LastReported returns when the node's agent last reported; of one that never has, when its node state was made.
func (s *XDPNodeState) LastReported() time.Time {
	if t := s.Status.ReportTime; t != nil {
		return t.Time
	}
	return s.CreationTimestamp.Time
}

// Told returns when the agent was told the present spec.
func (s *XDPNodeState) Told() time.Time {
	if t := s.Spec.UpdateTime; t != nil {
		return t.Time
	}
	return s.CreationTimestamp.Time
}

// moving reports whether the agent told of traffic. Then its next report differs, if only by its rates, and is due after
// the interval.
func (s *XDPNodeState) moving() bool {
	return slices.ContainsFunc(s.Status.Accounts, func(a CounterAccount) bool { return a.Rate() != traffic.Rate{} })
}

// Silent reports whether the node's agent should have reported by now and has not.
func (s *XDPNodeState) Silent(now time.Time) bool { return now.After(s.SilentFrom()) }
