package controllers

import (
	"slices"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// announce returns what all agents shall be told: the counters that select every node, the oldest first. One that never
// counted is not told of. One that selects every node no longer stays as it was until each node state tells of it: an agent
// that knows it by the notice alone would give its account up. waiting reports that there is one.
func announce(counters []v1alpha1.XDPCounter, notice *v1alpha1.XDPNotice, states []v1alpha1.XDPNodeState) (list []v1alpha1.NodeCounter, waiting bool) {
	for _, c := range byAge(counters) {
		told := notice.Entry(c.UID)
		selector, _ := nodeSelector(&c) // an error is for the counter's status to tell
		switch {
		case selector.Empty() && (told != nil || counts(&c)):
			list = append(list, entry(&c, counts(&c)))
		case told != nil && !toldEverywhere(states, *told):
			list, waiting = append(list, *told), true
		}
	}
	return list, waiting
}

// toldEverywhere reports whether all node states tell of a counter at least what the notice does.
func toldEverywhere(states []v1alpha1.XDPNodeState, news v1alpha1.NodeCounter) bool {
	return !slices.ContainsFunc(states, func(s v1alpha1.XDPNodeState) bool {
		own := s.Spec.Entry(news.UID)
		return own == nil || own.Generation < news.Generation
	})
}
