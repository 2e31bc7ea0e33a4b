// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=xdp-operator.io,resources=xdpnodestates,verbs=get;list;watch;create;update;delete
// +kubebuilder:rbac:groups=xdp-operator.io,resources=xdpcounters,verbs=get;list;watch
// +kubebuilder:rbac:groups=xdp-operator.io,resources=xdpcounters/status,verbs=patch

// NodeStateReconciler maintains one XDPNodeState per node that an XDPCounter selects. It is the only one that creates them,
// writes their spec and deletes them.
type NodeStateReconciler struct {
	Client client.Client
	Live   client.Reader // without a cache
	Clock  clock.PassiveClock
	Budget Budget

	// SpecWriters is how many node states are reconciled, and their specs written, at the same time. Zero means 1.
	SpecWriters int

	deleted deletedStates
	writes  writes
	nodes   nodeCount // updated by the watch; zero without a watch, so that no interval is extended
	pace    specPace
}

// Reconcile creates, updates, retires or deletes the node state of the node in the request.
func (r *NodeStateReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	state, err := get(ctx, r.Client, req.NamespacedName, &v1alpha1.XDPNodeState{})
	if err != nil {
		return ctrl.Result{}, err
	}
	node, err := get(ctx, r.Client, req.NamespacedName, &corev1.Node{})
	if err != nil {
		return ctrl.Result{}, err
	}
	counters := &v1alpha1.XDPCounterList{}
	if err := r.Client.List(ctx, counters, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, fmt.Errorf("list counters: %w", err)
	}
	if err := r.rescue(ctx, req.Name, counters.Items); err != nil {
		return requeueOnConflict(err)
	}
	switch {
	case node == nil && state == nil:
		return ctrl.Result{}, nil
	case node == nil, retiring(state):
		return requeueOnConflict(r.retire(ctx, state, counters.Items))
	}
	spec := assign(counters.Items, node, state, r.nodes.get(), r.Budget)
	switch {
	case state != nil && len(spec.Counters) == 0 && detached(state):
		// As long as something may be attached there is an object that shows it.
		r.pace.done(req.Name)
		return requeueOnConflict(r.delete(ctx, state))
	case !needsSpec(state, spec):
		r.pace.done(req.Name)
		return ctrl.Result{}, nil
	}
	if wait := r.pace.wait(r.Budget, state, req.Name, r.nodes.get(), spec.ReportInterval.Duration, r.Clock.Now()); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	return requeueOnConflict(r.write(ctx, node, state, spec))
}

// needsSpec reports whether the node's state has to be created or its spec changed.
func needsSpec(state *v1alpha1.XDPNodeState, spec v1alpha1.XDPNodeStateSpec) bool {
	if state == nil {
		return len(spec.Counters) > 0
	}
	spec.UpdateTime = state.Spec.UpdateTime
	return !equality.Semantic.DeepEqual(state.Spec, spec)
}

// write creates the node's state, or replaces its spec.
func (r *NodeStateReconciler) write(ctx context.Context, node *corev1.Node, state *v1alpha1.XDPNodeState, spec v1alpha1.XDPNodeStateSpec) error {
	log := ctrl.LoggerFrom(ctx)
	if state == nil {
		log.Info("Creating node state", "counters", len(spec.Counters))
		state = &v1alpha1.XDPNodeState{ObjectMeta: metav1.ObjectMeta{Name: node.Name}, Spec: spec}
		if err := r.writes.count("create", r.Client.Create(ctx, state)); err != nil {
			return fmt.Errorf("create node state: %w", err)
		}
		r.pace.done(node.Name)
		return nil
	}
	log.V(1).Info("Updating node state", "counters", len(spec.Counters))
	spec.UpdateTime = &metav1.Time{Time: r.Clock.Now()}
	next := &v1alpha1.XDPNodeState{ObjectMeta: state.ObjectMeta, Spec: spec} // the API server keeps the status
	next.ManagedFields = nil                                                 // incomplete in the cache; the API server keeps them
	if err := r.writes.count("update", r.Client.Update(ctx, next)); err != nil {
		return fmt.Errorf("update node state: %w", err)
	}
	r.pace.done(node.Name)
	return nil
}

// retire adds the accounts of a departed node to the retired shares of the counters, and then deletes the node state. See
// retire.go. counters are the counters as they were read before.
func (r *NodeStateReconciler) retire(ctx context.Context, cached *v1alpha1.XDPNodeState, counters []v1alpha1.XDPCounter) error {
	// The cache may still have a node state whose share is added already. If the API server has it, it is not. If that changes
	// after this read, the counters change too, and writing them fails with a conflict.
	state, err := get(ctx, r.Live, client.ObjectKeyFromObject(cached), &v1alpha1.XDPNodeState{})
	if err != nil || state == nil || state.UID != cached.UID {
		return err
	}
	if !retiring(state) {
		ctrl.LoggerFrom(ctx).Info("Retiring departed node")
		metav1.SetMetaDataAnnotation(&state.ObjectMeta, v1alpha1.AnnotationRetiring, "true")
		if err := r.writes.count("update", r.Client.Update(ctx, state)); err != nil {
			return fmt.Errorf("mark node state as retiring: %w", err)
		}
	}
	if err := r.copyShare(ctx, state, counters); err != nil {
		return err
	}
	return r.delete(ctx, state)
}

// rescue adds the shares of node states that somebody else deleted. See deleted_states.go.
func (r *NodeStateReconciler) rescue(ctx context.Context, node string, counters []v1alpha1.XDPCounter) error {
	for _, state := range r.deleted.of(node) {
		if err := r.copyShare(ctx, state, counters); err != nil {
			return err
		}
		ctrl.LoggerFrom(ctx).Info("Kept the counts of a node state that was deleted", "uid", state.UID)
		r.deleted.forget(state)
	}
	return nil
}

// Rescuing reports whether the share of a node state that somebody else deleted has yet to be copied to all counters. It is
// safe for concurrent use.
func (r *NodeStateReconciler) Rescuing(state types.UID) bool { return r.deleted.has(state) }

// copyShare copies the accounts of a node state to the counters, each under the UID of the state.
func (r *NodeStateReconciler) copyShare(ctx context.Context, state *v1alpha1.XDPNodeState, counters []v1alpha1.XDPCounter) error {
	for i := range counters {
		c := &counters[i]
		account := state.Account(c.UID)
		if account == nil {
			continue
		}
		retired, changed := depart(c.Status.Retired, state, *account)
		if !changed {
			continue
		}
		if err := saveRetired(ctx, r.Client, c, retired); err != nil {
			return err
		}
	}
	return nil
}

// delete deletes the node state if it has not changed since it was read. Otherwise the agent's new report is processed first.
func (r *NodeStateReconciler) delete(ctx context.Context, state *v1alpha1.XDPNodeState) error {
	err := client.IgnoreNotFound(r.Client.Delete(ctx, state, client.Preconditions{UID: &state.UID, ResourceVersion: &state.ResourceVersion}))
	if r.writes.count("delete", err) != nil {
		return fmt.Errorf("delete node state: %w", err)
	}
	return nil
}

// saveRetired writes the retired share of a counter if the counter has not changed since it was read. The share is an
// accumulator, so it must not be computed from an old value.
func saveRetired(ctx context.Context, c client.Client, counter *v1alpha1.XDPCounter, retired *v1alpha1.Retired) error {
	next := counter.DeepCopy() // counter may point into the cache
	next.Status.Retired = retired
	patch := client.MergeFromWithOptions(counter, client.MergeFromWithOptimisticLock{})
	if err := c.Status().Patch(ctx, next, patch, fieldOwner); err != nil {
		return fmt.Errorf("save retired share of counter %s: %w", counter.Name, err)
	}
	*counter = *next
	return nil
}
