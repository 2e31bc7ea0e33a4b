// Package controllers is the cluster's half of the operator: it tells each node's agent which XDPCounters concern
// it, and sums up in each XDPCounter what the agents report.
package controllers

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// nodeSelector returns the selector of the counter's nodes. Without one it selects all. With an error it selects
// none: the API lets through what is no label, since it cannot check texts without a bound.
func nodeSelector(c *v1alpha1.XDPCounter) (labels.Selector, error) {
	if c.Spec.NodeSelector == nil {
		return labels.Everything(), nil
	}
	selector, err := metav1.LabelSelectorAsSelector(c.Spec.NodeSelector)
	if err != nil {
		return labels.Nothing(), fmt.Errorf("spec.nodeSelector: %w", err)
	}
	return selector, nil
}

// assign returns what the agent of a node shall be told: the counters that select the node, and inactive those
// that have an account there. The oldest comes first. state is the node's present state, nil if there is none.
// Without counters nothing is to be told. nodes is how many nodes share the budget.
func assign(counters []v1alpha1.XDPCounter, node *corev1.Node, state *v1alpha1.XDPNodeState, nodes int, budget Budget) v1alpha1.XDPNodeStateSpec {
	var spec v1alpha1.XDPNodeStateSpec
	shortest := time.Hour
	for _, c := range byAge(counters) {
		selector, _ := nodeSelector(&c) // an error is for the counter's status to tell
		active := selector.Matches(labels.Set(node.Labels)) && !c.Spec.Suspend && c.DeletionTimestamp.IsZero()
		if !active && !hasAccount(state, c.UID) {
			continue
		}
		entry := v1alpha1.NodeCounter{
			Name:       c.Name,
			UID:        c.UID,
			Generation: c.Generation,
			Inactive:   !active,
			Primary:    true,
		}
		if c.Spec.AttachMode != v1alpha1.AttachAuto {
			entry.AttachMode = c.Spec.AttachMode
		}
		if c.Spec.Coexistence == v1alpha1.CoexistenceDispatcher {
			entry.Coexistence = c.Spec.Coexistence
		}
		if i := c.Spec.Interfaces; i != nil {
			entry.Primary, entry.Names, entry.Exclude = i.Primary, names(i.Names), names(i.Exclude)
		}
		spec.Counters = append(spec.Counters, entry)
		if active {
			shortest = min(shortest, wantedInterval(&c))
		}
	}
	spec.ReportInterval = metav1.Duration{Duration: budget.interval(shortest, nodes)}
	spec.ReportBytesPerSecond = budget.bytesPerNode(nodes)
	return spec
}

func names(patterns []v1alpha1.InterfacePattern) []string {
	var names []string
	for _, p := range patterns {
		names = append(names, string(p))
	}
	return names
}

// hasAccount reports whether the node's agent keeps an account for the counter, or may open one before it learns
// that it is not to.
func hasAccount(state *v1alpha1.XDPNodeState, uid types.UID) bool {
	if state == nil {
		return false
	}
	if state.Status.ObservedGeneration < state.Generation {
		return state.Spec.Entry(uid) != nil
	}
	return state.Account(uid) != nil
}

// detached reports whether the node's agent holds nothing and is told to take up nothing. An agent attaches nothing
// before its first report.
func detached(state *v1alpha1.XDPNodeState) bool {
	return state.Status.ObservedGeneration == 0 ||
		state.Status.ObservedGeneration == state.Generation && len(state.Spec.Counters) == 0 && len(state.Status.Interfaces) == 0
}

// wantedInterval is the interval that the counter asks for, the API's default if none.
func wantedInterval(c *v1alpha1.XDPCounter) time.Duration {
	return cmp.Or(c.Spec.ReportInterval.Duration, 10*time.Second)
}

// byAge returns the counters with the oldest first; among those of one second the name decides.
func byAge(counters []v1alpha1.XDPCounter) []v1alpha1.XDPCounter {
	return slices.SortedFunc(slices.Values(counters), func(a, b v1alpha1.XDPCounter) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}
