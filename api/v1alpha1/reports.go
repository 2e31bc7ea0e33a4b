package v1alpha1

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Account returns what the counter with the UID has counted on this node, nil if it has no account here.
func (s *XDPNodeState) Account(uid types.UID) *CounterAccount {
	i := slices.IndexFunc(s.Status.Accounts, func(a CounterAccount) bool { return a.UID == uid })
	if i < 0 {
		return nil
	}
	return &s.Status.Accounts[i]
}

// Follows reports whether the node's agent works by the counter's present spec.
func (s *XDPNodeState) Follows(c *XDPCounter) bool {
	told := slices.ContainsFunc(s.Spec.Counters, func(n NodeCounter) bool { return n.UID == c.UID && n.Generation == c.Generation })
	if !told {
		return false
	}
	if s.Status.ObservedGeneration == s.Generation {
		return true
	}
	account := s.Account(c.UID) // the node state may have changed for another counter's sake
	return account != nil && account.Generation == c.Generation
}

// Silent reports whether the node's agent should have reported by now and has not.
func (s *XDPNodeState) Silent(now time.Time) bool {
	last := s.CreationTimestamp.Time
	if t := s.Status.ReportTime; t != nil {
		last = t.Time
	}
	return now.Sub(last) > SilenceLimit(s.Spec.ReportInterval.Duration)
}
