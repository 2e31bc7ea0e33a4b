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

// A node that leaves keeps its share of the totals. Its node state is marked as retiring, from when on nothing but its
// end lies before it. Its share is copied into status.retired.departing of each counter under the UID of the node
// state, which from then on is not added itself; then the node state is deleted, provided that it has not changed
// since; then the copy is added to status.retired.counts and dropped. Each step can be made again without harm, so a
// crash between any two of them neither loses nor doubles anything.

// retiring reports that the node state is being retired, or was when it was deleted.
func retiring(state *v1alpha1.XDPNodeState) bool {
	return state != nil && metav1.HasAnnotation(state.ObjectMeta, v1alpha1.AnnotationRetiring)
}

// depart returns the retired share with the account of the departing node's state copied into it. changed is
// false if it was there already, as it is now.
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

// keeps returns the UIDs of the copies that are not settled yet: of node states that the caches show, and of the latest
// that is gone of each node that there is. That one may have been deleted by hand, and its copying may be repeated: it
// has to be known again (see lost.go).
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

// settle returns the retired share with the copies of those node states that are gone added up.
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

// retiredTotals returns the whole retired share, and the UIDs of the node states whose share it contains.
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
