// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// SetupWithManager registers the reconciler with the manager. A node is reconciled when it is created, deleted or labelled,
// when its node state is edited or deleted, and when its agent finishes a cleanup. All nodes are reconciled when a counter is
// created, edited or deleted, and when the number of nodes has changed much.
func (r *NodeStateReconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("xdpnodestate").
		WithOptions(controller.Options{MaxConcurrentReconciles: r.SpecWriters}).
		For(&v1alpha1.XDPNodeState{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, hasPendingCleanup()))).
		Watches(&v1alpha1.XDPNodeState{}, r.onDeleted()).
		Watches(&corev1.Node{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(predicate.LabelChangedPredicate{})).
		Watches(&corev1.Node{}, r.onNodeCount()).
		Watches(&v1alpha1.XDPCounter{}, handler.EnqueueRequestsFromMapFunc(r.allNodes), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Complete(r)
}

// onNodeCount counts the nodes on which an agent can run. All existing nodes are added before the first Reconcile.
func (r *NodeStateReconciler) onNodeCount() handler.EventHandler {
	change := func(ctx context.Context, q queue, before, after int) {
		if !r.nodes.add(after - before) {
			return
		}
		for _, request := range r.allNodes(ctx, nil) {
			q.Add(request)
		}
	}
	agents := func(object client.Object) int {
		if node, ok := object.(*corev1.Node); ok && canRunAgent(node) {
			return 1
		}
		return 0
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) { change(ctx, q, 0, agents(e.Object)) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			change(ctx, q, agents(e.ObjectOld), agents(e.ObjectNew))
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) { change(ctx, q, agents(e.Object), 0) },
	}
}

// hasPendingCleanup selects the reports of agents that have something to clean up: the account of an inactive counter, or
// everything if no counter is left.
func hasPendingCleanup() predicate.Predicate {
	return predicate.NewPredicateFuncs(func(object client.Object) bool {
		state, ok := object.(*v1alpha1.XDPNodeState)
		if !ok {
			return false
		}
		inactive := func(c v1alpha1.NodeCounter) bool { return c.Inactive }
		return len(state.Spec.Counters) == 0 || slices.ContainsFunc(state.Spec.Counters, inactive)
	})
}

// allNodes returns a request for every node and for every node state.
func (r *NodeStateReconciler) allNodes(ctx context.Context, _ client.Object) []reconcile.Request {
	names := map[string]bool{}
	nodes := &corev1.NodeList{}
	states := &v1alpha1.XDPNodeStateList{}
	for _, list := range []client.ObjectList{nodes, states} {
		if err := r.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Cannot list from the cache")
		}
	}
	for i := range nodes.Items {
		names[nodes.Items[i].Name] = true
	}
	for i := range states.Items {
		names[states.Items[i].Name] = true
	}
	requests := make([]reconcile.Request, 0, len(names))
	for name := range names {
		requests = append(requests, request(name))
	}
	return requests
}

// onDeleted records node states that were deleted. It ignores a deletion that the watch missed: the last version is not
// known, and its share may have been retired since.
func (r *NodeStateReconciler) onDeleted() handler.EventHandler {
	return handler.Funcs{DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) {
		if state, ok := e.Object.(*v1alpha1.XDPNodeState); ok && !e.DeleteStateUnknown && r.deleted.add(state) {
			q.Add(request(state.Name))
		}
	}}
}
