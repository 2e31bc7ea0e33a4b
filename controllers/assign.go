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
// that have an account there, or may get one by the notice. The oldest comes first. state is the node's present state, nil
// if there is none. Without counters nothing is to be told. nodes is how many nodes share the budget.
func assign(counters []v1alpha1.XDPCounter, node *corev1.Node, state *v1alpha1.XDPNodeState, notice *v1alpha1.XDPNotice, nodes int, budget Budget) v1alpha1.XDPNodeStateSpec {
	var spec v1alpha1.XDPNodeStateSpec
	shortest := time.Hour
	for _, c := range byAge(counters) {
		selector, _ := nodeSelector(&c) // an error is for the counter's status to tell
		active := selector.Matches(labels.Set(node.Labels)) && counts(&c)
		if !active && !hasAccount(state, c.UID) && !mayOpen(state, notice.Entry(c.UID)) {
			continue
		}
		spec.Counters = append(spec.Counters, entry(&c, active))
		if active {
			shortest = min(shortest, wantedInterval(&c))
		}
	}
	spec.Notice = takenIn(counters, notice)
	spec.ReportInterval = metav1.Duration{Duration: budget.stretch(shortest, nodes, reportSize(spec.Counters, state))}
	return spec
}

// counts reports whether the counter is to count where it selects something.
func counts(c *v1alpha1.XDPCounter) bool { return !c.Spec.Suspend && c.DeletionTimestamp.IsZero() }

// entry returns what an agent is told of a counter.
func entry(c *v1alpha1.XDPCounter, active bool) v1alpha1.NodeCounter {
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
	return entry
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

// mayOpen reports whether the node's agent may open an account by what the notice tells, or has by what it told before.
func mayOpen(state *v1alpha1.XDPNodeState, news *v1alpha1.NodeCounter) bool {
	return news != nil && (state != nil || !news.Inactive)
}

// takenIn returns the generation of the notice if these counters are no older than those it tells of, else zero. One that
// is not among them may be gone, or not be here yet.
func takenIn(counters []v1alpha1.XDPCounter, notice *v1alpha1.XDPNotice) int64 {
	for _, news := range notice.Spec.Counters {
		if !slices.ContainsFunc(counters, func(c v1alpha1.XDPCounter) bool { return c.UID == news.UID && c.Generation >= news.Generation }) {
			return 0
		}
	}
	return notice.Generation
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
