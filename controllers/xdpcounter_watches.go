// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// SetupWithManager registers the reconciler with the manager. A counter is reconciled when it is edited, when a node is
// created, deleted or labelled or becomes unreachable or reachable, and when a node state that lists the counter changes. A
// change of state is summarized at once, in a large cluster after a few seconds. A change of totals is summarized at most
// once per StatusInterval.
func (r *XDPCounterReconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("xdpcounter").
		For(&v1alpha1.XDPCounter{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(r.allCounters), builder.WithPredicates(predicate.Or(predicate.LabelChangedPredicate{}, reachChanged()))).
		Watches(&v1alpha1.XDPNodeState{}, r.onNodeState()).
		Complete(r)
}

// reachChanged selects updates of nodes that became unreachable or reachable.
func reachChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, okBefore := e.ObjectOld.(*corev1.Node)
		after, okAfter := e.ObjectNew.(*corev1.Node)
		return okBefore && okAfter && !unreachableSince(before).Equal(unreachableSince(after))
	}}
}

// allCounters returns a request for every counter.
func (r *XDPCounterReconciler) allCounters(ctx context.Context, _ client.Object) []reconcile.Request {
	counters := &v1alpha1.XDPCounterList{}
	if err := r.Client.List(ctx, counters, client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Cannot list from the cache")
	}
	requests := make([]reconcile.Request, 0, len(counters.Items))
	for i := range counters.Items {
		requests = append(requests, request(counters.Items[i].Name))
	}
	return requests
}

// onNodeState requests the counters that a node state lists. Requests for one counter that arrive within the delay are
// merged by the queue.
func (r *XDPCounterReconciler) onNodeState() handler.EventHandler {
	add := func(q queue, object client.Object, delay time.Duration) {
		state, ok := object.(*v1alpha1.XDPNodeState)
		if !ok {
			return
		}
		for _, c := range state.Spec.Counters {
			q.AddAfter(request(c.Name), delay)
		}
	}
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { add(q, e.Object, 0) },
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) { add(q, e.Object, 0) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			delay := r.delay(e.ObjectOld, e.ObjectNew)
			add(q, e.ObjectOld, delay)
			add(q, e.ObjectNew, delay)
		},
	}
}

// delay returns how long a change of a node state may wait before its counters are summarized.
func (r *XDPCounterReconciler) delay(before, after client.Object) time.Duration {
	b, okBefore := before.(*v1alpha1.XDPNodeState)
	a, okAfter := after.(*v1alpha1.XDPNodeState)
	if okBefore && okAfter && a.Generation == b.Generation &&
		equality.Semantic.DeepEqual(b.Status.WithoutTotals(), a.Status.WithoutTotals()) {
		return r.StatusInterval
	}
	return time.Duration(r.states.Load()) * delayPerState
}

// delayPerState times the number of node states is how long changes of state are collected before a counter is summarized
// again: 5 s with 5,000 node states. That is about fifty times as long as summarizing takes. So a change on all nodes leaves
// most of the API server's time to the agents, and in a small cluster there is no noticeable delay.
const delayPerState = time.Millisecond
