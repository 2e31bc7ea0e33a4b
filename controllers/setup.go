package controllers

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// CacheOptions keeps in the caches only what the controllers look at.
func CacheOptions() cache.Options {
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Node{}: {Transform: func(object any) (any, error) {
				if node, ok := object.(*corev1.Node); ok {
					node.ManagedFields, node.Annotations = nil, nil
					ready := readyOf(node)
					node.Spec, node.Status = corev1.NodeSpec{}, corev1.NodeStatus{}
					if ready != nil {
						node.Status.Conditions = []corev1.NodeCondition{{Type: ready.Type, Status: ready.Status, Reason: ready.Reason, LastTransitionTime: ready.LastTransitionTime}}
					}
				}
				return object, nil
			}},
		},
	}
}

// SetupWithManager makes the manager call Reconcile for a node when it comes, goes or is labelled, for all nodes
// when a counter comes, goes or is edited, and when a node state is edited or lost, or its agent winds
// something up.
func (r *NodeStateReconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("xdpnodestate").
		For(&v1alpha1.XDPNodeState{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, mayShrink()))).
		Watches(&v1alpha1.XDPNodeState{}, r.onDeleted()).
		Watches(&corev1.Node{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(predicate.LabelChangedPredicate{})).
		Watches(&v1alpha1.XDPCounter{}, handler.EnqueueRequestsFromMapFunc(r.allNodes), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Complete(r)
}

// mayShrink lets through the reports of agents that wind something up: a counter's account, or everything.
func mayShrink() predicate.Predicate {
	return predicate.NewPredicateFuncs(func(object client.Object) bool {
		state, ok := object.(*v1alpha1.XDPNodeState)
		if !ok {
			return false
		}
		inactive := func(c v1alpha1.NodeCounter) bool { return !c.Active }
		return len(state.Spec.Counters) == 0 || slices.ContainsFunc(state.Spec.Counters, inactive)
	})
}

// allNodes names every node that there is or of which there is a state.
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

// SetupWithManager makes the manager call Reconcile for a counter when it is edited, when a node that it may
// select comes, goes, is labelled or gets out of reach or back, and when a node state that concerns it changes: at once for a change of
// state, at most once per StatusInterval for totals.
func (r *XDPCounterReconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("xdpcounter").
		For(&v1alpha1.XDPCounter{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(r.allCounters), builder.WithPredicates(predicate.Or(predicate.LabelChangedPredicate{}, reachChanged()))).
		Watches(&v1alpha1.XDPNodeState{}, r.onNodeState()).
		Complete(r)
}

// reachChanged lets through the updates of nodes that get out of reach, or back.
func reachChanged() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, okBefore := e.ObjectOld.(*corev1.Node)
		after, okAfter := e.ObjectNew.(*corev1.Node)
		return okBefore && okAfter && !unreachableSince(before).Equal(unreachableSince(after))
	}}
}

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

// onNodeState asks for the counters that a node state lists. Adding to the queue with a delay merges all that
// comes within it into one.
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
			add(q, e.ObjectOld, r.delay(e.ObjectOld, e.ObjectNew))
			add(q, e.ObjectNew, r.delay(e.ObjectOld, e.ObjectNew))
		},
	}
}

func (r *XDPCounterReconciler) delay(before, after client.Object) time.Duration {
	b, okBefore := before.(*v1alpha1.XDPNodeState)
	a, okAfter := after.(*v1alpha1.XDPNodeState)
	if okBefore && okAfter && a.Generation == b.Generation &&
		equality.Semantic.DeepEqual(b.Status.WithoutTotals(), a.Status.WithoutTotals()) {
		return r.StatusInterval
	}
	return 0
}

func request(name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}
}
