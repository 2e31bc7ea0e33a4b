// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// The counts of a departed node stay in the totals. This takes four steps:
//
//  1. The node state is annotated as retiring. From then on it can only be deleted.
//  2. Its accounts are copied to status.retired.departing of each counter, with the UID of the node state. From then on the
//     node state itself is not added to the totals.
//  3. The node state is deleted, provided that it has not changed.
//  4. The copy is added to status.retired.counts and removed from status.retired.departing.
//
// Each step is idempotent, so a crash between any two of them neither loses counts nor adds them twice.

// retiring reports whether the node state is being retired, or was when it was deleted.
func retiring(state *v1alpha1.XDPNodeState) bool {
	return state != nil && metav1.HasAnnotation(state.ObjectMeta, v1alpha1.AnnotationRetiring)
}

// depart returns the retired share with a copy of the account of a departing node. changed is false if the same copy was
// there already.
func depart(r *v1alpha1.Retired, state *v1alpha1.XDPNodeState, account v1alpha1.CounterAccount) (next *v1alpha1.Retired, changed bool) {
	next = &v1alpha1.Retired{}
	if r != nil {
		next = r.DeepCopy()
	}
	entry := v1alpha1.DepartingNode{Name: state.Name, UID: state.UID, Counts: v1alpha1.WithoutRates(account.Counts)}
	at := slices.IndexFunc(next.Departing, func(d v1alpha1.DepartingNode) bool { return d.UID == state.UID })
	switch {
	case at < 0:
		next.Departing = append(next.Departing, entry)
	case equality.Semantic.DeepEqual(next.Departing[at], entry):
		return next, false
	default:
		next.Departing[at] = entry
	}
	return next, true
}

// keeps returns the UIDs of the copies that must not be merged yet: those of node states in the cache, and of each existing
// node that of the latest node state. That one may have been deleted by a user, and copying it may be repeated, which has to
// be recognized by its UID (see deleted_states.go).
func keeps(r *v1alpha1.Retired, nodes []corev1.Node, states []v1alpha1.XDPNodeState) map[types.UID]bool {
	kept, latest := map[types.UID]bool{}, map[string]types.UID{}
	for _, d := range r.Departing {
		latest[d.Name] = d.UID
	}
	for i := range nodes {
		kept[latest[nodes[i].Name]] = true
	}
	for i := range states {
		kept[states[i].UID] = true
	}
	return kept
}

// mergeDeparted returns the retired share with the copies of deleted node states added to its counts.
func mergeDeparted(r *v1alpha1.Retired, gone func(v1alpha1.DepartingNode) bool) (next *v1alpha1.Retired, changed bool) {
	if r == nil {
		return nil, false
	}
	next = &v1alpha1.Retired{}
	sum := v1alpha1.TotalsOf(r.Counts)
	for _, d := range r.Departing {
		if gone(d) {
			sum, changed = sum.Plus(v1alpha1.TotalsOf(d.Counts)), true
			continue
		}
		next.Departing = append(next.Departing, d)
	}
	next.Counts = v1alpha1.CountsOf(sum)
	return next, changed
}

// retiredTotals returns the sum of the retired share, and the UIDs of the node states that it contains.
func retiredTotals(r *v1alpha1.Retired) (totals traffic.Totals, contained map[types.UID]bool) {
	contained = map[types.UID]bool{}
	if r == nil {
		return totals, contained
	}
	totals = v1alpha1.TotalsOf(r.Counts)
	for _, d := range r.Departing {
		totals = totals.Plus(v1alpha1.TotalsOf(d.Counts))
		contained[d.UID] = true
	}
	return totals, contained
}
