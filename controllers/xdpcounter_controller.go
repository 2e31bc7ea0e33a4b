// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	applyv1alpha1 "github.com/xdp-operator/xdp-operator/api/v1alpha1/applyconfiguration/api/v1alpha1"
)

// XDPCounterReconciler summarizes the reports of the nodes in the status of each XDPCounter. It is the only writer of the
// status, with one exception: NodeStateReconciler adds to status.retired.
type XDPCounterReconciler struct {
	Client client.Client
	Live   client.Reader // without a cache
	Clock  clock.PassiveClock
	Events events.EventRecorder

	// StatusInterval is the minimum time between two writes of the status if only totals have changed. A change of state is
	// written at once.
	StatusInterval time.Duration

	// Rescuing reports whether the share of a node state is still being copied (NodeStateReconciler.Rescuing). Its copy is not
	// merged until then. nil means never.
	Rescuing func(types.UID) bool

	notified notified
	reports  reportTimes
	states   atomic.Int64 // the number of node states in the last Reconcile
}

// Reconcile updates the status of a counter and sends its events.
func (r *XDPCounterReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	counter, err := get(ctx, r.Client, req.NamespacedName, &v1alpha1.XDPCounter{})
	if counter == nil {
		if err == nil {
			r.notified.forget(req.Name)
		}
		return ctrl.Result{}, err
	}
	nodes := &corev1.NodeList{}
	if err := r.Client.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, fmt.Errorf("list nodes: %w", err)
	}
	states := &v1alpha1.XDPNodeStateList{}
	if err := r.Client.List(ctx, states, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, fmt.Errorf("list node states: %w", err)
	}
	r.states.Store(int64(len(states.Items)))
	if err := r.mergeDeparted(ctx, counter, nodes.Items, states.Items); err != nil {
		return requeueOnConflict(err)
	}
	now := r.Clock.Now()
	seen, err := r.look(ctx, nodes.Items, states.Items, now)
	if err != nil {
		return ctrl.Result{}, err
	}
	status := summarize(counter, nodes.Items, states.Items, seen, now)
	if needsWrite(counter.Status, status) {
		if err := r.apply(ctx, counter, status); err != nil {
			return requeueOnConflict(err)
		}
	}
	conclusive := !meta.IsStatusConditionPresentAndEqual(status.Conditions, v1alpha1.ConditionReady, metav1.ConditionUnknown)
	send(r.Events, counter, r.notified.next(counter, attachStates(counter.UID, states.Items), conclusive))
	return ctrl.Result{RequeueAfter: untilNextLate(seen, now)}, nil
}

// look returns when the report of each node state was first seen. The first call reads which agents an earlier controller has
// reported as late.
func (r *XDPCounterReconciler) look(ctx context.Context, nodes []corev1.Node, states []v1alpha1.XDPNodeState, now time.Time) (map[types.UID]sighting, error) {
	if !r.reports.hasStarted() {
		counters := &v1alpha1.XDPCounterList{}
		if err := r.Client.List(ctx, counters, client.UnsafeDisableDeepCopy); err != nil {
			return nil, fmt.Errorf("list counters: %w", err)
		}
		r.reports.start(counters.Items, nodes, states, now)
	}
	return r.reports.look(nodes, states, now), nil
}

// mergeDeparted adds the copies of departed nodes to the retired counts when their node state is deleted for certain: neither
// the cache, from which the totals are computed, nor the API server, which may be ahead of the cache, has it.
func (r *XDPCounterReconciler) mergeDeparted(ctx context.Context, counter *v1alpha1.XDPCounter, nodes []corev1.Node, states []v1alpha1.XDPNodeState) error {
	if counter.Status.Retired == nil || len(counter.Status.Retired.Departing) == 0 {
		return nil
	}
	kept := keeps(counter.Status.Retired, nodes, states)
	var failed error
	retired, changed := mergeDeparted(counter.Status.Retired, func(d v1alpha1.DepartingNode) bool {
		if kept[d.UID] || r.Rescuing != nil && r.Rescuing(d.UID) {
			return false
		}
		state, err := get(ctx, r.Live, types.NamespacedName{Name: d.Name}, &v1alpha1.XDPNodeState{})
		if err != nil {
			failed = err
			return false
		}
		return state == nil || state.UID != d.UID
	})
	if failed != nil || !changed {
		return failed
	}
	return saveRetired(ctx, r.Client, counter, retired)
}

// apply writes the status if the counter has not changed since it was read. The totals contain status.retired, and must not
// be computed from an old value of it.
func (r *XDPCounterReconciler) apply(ctx context.Context, counter *v1alpha1.XDPCounter, status v1alpha1.XDPCounterStatus) error {
	status.Retired = nil // written by saveRetired only
	applied := &applyv1alpha1.XDPCounterStatusApplyConfiguration{}
	if err := convert(status, applied); err != nil {
		return err
	}
	config := applyv1alpha1.XDPCounter(counter.Name).
		WithResourceVersion(counter.ResourceVersion).
		WithUID(counter.UID).
		WithStatus(applied)
	err := r.Client.Status().Apply(ctx, config, fieldOwner, client.ForceOwnership)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("apply status: %w", err)
	}
	return nil
}

// needsWrite reports whether a status differs in more than the time of the last report.
func needsWrite(old, next v1alpha1.XDPCounterStatus) bool {
	next.LastReportTime = old.LastReportTime
	return !equality.Semantic.DeepEqual(old, next)
}
