package controllers

import (
	"context"
	"slices"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
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
			&corev1.Node{}:           {Transform: withoutWaste(slimNode)},
			&v1alpha1.XDPNodeState{}: {Transform: withoutWaste(slimState)},
		},
	}
}

// withoutWaste lets slim take out of each object of one kind what is not looked at. Managed fields never are.
func withoutWaste[T client.Object](slim func(T)) func(any) (any, error) {
	return func(object any) (any, error) {
		if o, ok := object.(T); ok {
			o.SetManagedFields(nil)
			slim(o)
		}
		return object, nil
	}
}

func slimNode(node *corev1.Node) {
	ready := readyOf(node)
	node.Annotations, node.Spec, node.Status = nil, corev1.NodeSpec{}, corev1.NodeStatus{}
	if ready != nil {
		node.Status.Conditions = []corev1.NodeCondition{{Type: ready.Type, Status: ready.Status, Reason: ready.Reason, LastTransitionTime: ready.LastTransitionTime}}
	}
}

// slimState leaves out what only the agent itself needs: what its maps held. That the controllers write the state's spec
// does not take it away: they do not write the status. Texts that all node states share are kept once.
func slimState(state *v1alpha1.XDPNodeState) {
	share := func(s *string) { *s = unique.Make(*s).Value() }
	shareUID := func(uid *types.UID) { *uid = types.UID(unique.Make(string(*uid)).Value()) }
	for i := range state.Spec.Counters {
		c := &state.Spec.Counters[i]
		share(&c.Name)
		shareUID(&c.UID)
	}
	s := &state.Status
	s.Agent, s.Conditions = nil, nil
	for i := range s.Interfaces {
		n := &s.Interfaces[i]
		n.Driver, n.Counts = "", nil
		share(&n.Name)
		for j := range n.Counters {
			shareUID(&n.Counters[j])
		}
	}
	for i := range s.Accounts {
		a := &s.Accounts[i]
		shareUID(&a.UID)
		for j := range a.Counts {
			share(&a.Counts[j].Class)
		}
	}
}

// SetupWithManager makes the manager call Reconcile for a node when it comes, goes or is labelled, for all nodes
// when a counter comes, goes or is edited or the nodes have become many more or fewer, and when a node state is edited or
// lost, or its agent winds something up.
func (r *NodeStateReconciler) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("xdpnodestate").
		WithOptions(controller.Options{MaxConcurrentReconciles: r.SpecWriters}).
		For(&v1alpha1.XDPNodeState{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, mayShrink()))).
		Watches(&v1alpha1.XDPNodeState{}, r.onDeleted()).
		Watches(&corev1.Node{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(predicate.LabelChangedPredicate{})).
		Watches(&corev1.Node{}, r.onNodeCount()).
		Watches(&v1alpha1.XDPCounter{}, handler.EnqueueRequestsFromMapFunc(r.allNodes), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Complete(r)
}

// onNodeCount counts the nodes. Before the first Reconcile it has been told of all there are.
func (r *NodeStateReconciler) onNodeCount() handler.EventHandler {
	add := func(ctx context.Context, q queue, nodes int) {
		if !r.nodes.add(nodes) {
			return
		}
		for _, request := range r.allNodes(ctx, nil) {
			q.Add(request)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, _ event.CreateEvent, q queue) { add(ctx, q, 1) },
		DeleteFunc: func(ctx context.Context, _ event.DeleteEvent, q queue) { add(ctx, q, -1) },
	}
}

// mayShrink lets through the reports of agents that wind something up: a counter's account, or everything.
func mayShrink() predicate.Predicate {
	return predicate.NewPredicateFuncs(func(object client.Object) bool {
		state, ok := object.(*v1alpha1.XDPNodeState)
		if !ok {
			return false
		}
		inactive := func(c v1alpha1.NodeCounter) bool { return c.Inactive }
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
// select comes, goes, is labelled or gets out of reach or back, and when a node state that concerns it changes: at once
// for a change of state, in a large cluster within a second, and at most once per StatusInterval for totals.
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
			delay := r.delay(e.ObjectOld, e.ObjectNew)
			add(q, e.ObjectOld, delay)
			add(q, e.ObjectNew, delay)
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
	return time.Duration(r.states.Load()) * gather
}

// gather is, per node state that there is, how long changes of state are gathered before a counter is summed up again:
// 5 s of 5,000. That is some fifty times as long as summing up takes, so that a change of all nodes, which is one of each counter
// for as long as it lasts, leaves the API server to the nodes; and in a small cluster it is nothing.
const gather = time.Millisecond

func request(name string) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Name: name}}
}
