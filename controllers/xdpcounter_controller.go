package controllers

import (
	"context"
	"fmt"
	"slices"
	"sync"
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

// startupGracePeriod is how long a controller that has started waits before it reports that agents are late.
const startupGracePeriod = 30 * time.Second

// XDPCounterReconciler sums up in each XDPCounter's status what the nodes report. It alone writes that status,
// but for the retired share, to which NodeStateReconciler adds.
type XDPCounterReconciler struct {
	Client client.Client
	Live   client.Reader // reads past the cache
	Clock  clock.PassiveClock
	Events events.EventRecorder

	// StatusInterval is how often the status may be written for the mere growth of totals. What changes state
	// is written at once.
	StatusInterval time.Duration

	// Rescuing reports that the share of a node state is still being copied (NodeStateReconciler.Rescuing), so that
	// its copy has to be known until it is done. nil: none is.
	Rescuing func(types.UID) bool

	notified notified
	once     sync.Once
	began    time.Time    // the first Reconcile
	states   atomic.Int64 // how many node states there were when last looked
}

// Reconcile brings the status of one counter up to date.
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
	status := summarize(counter, nodes.Items, states.Items, now)
	if wait := r.startupGrace(counter.Status, status, now); wait > 0 {
		return ctrl.Result{RequeueAfter: wait}, nil
	}
	if needsWrite(counter.Status, status) {
		if err := r.apply(ctx, counter, status); err != nil {
			return requeueOnConflict(err)
		}
	}
	conclusive := !meta.IsStatusConditionPresentAndEqual(status.Conditions, v1alpha1.ConditionReady, metav1.ConditionUnknown)
	send(r.Events, counter, r.notified.next(counter, attachStates(counter.UID, states.Items), conclusive))
	return ctrl.Result{RequeueAfter: untilNextLate(nodes.Items, states.Items, now)}, nil
}

// early returns how long it is too early yet to say that agents are silent, zero if it is not. After an outage of the API
// server, which ends a controller that leads, nothing may have come in from anybody. What was told before stays told.
func (r *XDPCounterReconciler) startupGrace(old, next v1alpha1.XDPCounterStatus, now time.Time) time.Duration {
	r.once.Do(func() { r.began = now })
	if hasLateReports(old) || !hasLateReports(next) {
		return 0
	}
	return max(0, r.began.Add(startupGracePeriod).Sub(now))
}

func hasLateReports(s v1alpha1.XDPCounterStatus) bool {
	return slices.ContainsFunc(s.Failures, func(f v1alpha1.Failure) bool {
		return f.Reason == v1alpha1.ReasonAgentNotReporting || f.Reason == v1alpha1.ReasonNodeUnreachable
	})
}

// settle adds the shares of departed nodes to the retired counts, once nothing can bring them up again: when the
// cache shows the state no more, from which the totals are computed, and the API server has none, which the cache may
// not know yet.
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

// apply writes the status, provided that the counter is still as it was read: the totals contain its retired
// share, and must not be computed from an old one.
func (r *XDPCounterReconciler) apply(ctx context.Context, counter *v1alpha1.XDPCounter, status v1alpha1.XDPCounterStatus) error {
	status.Retired = nil // not ours to apply: it is saved by compare-and-swap
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

// news reports whether a status is worth writing. A report that brings nothing but its own time is not.
func needsWrite(old, next v1alpha1.XDPCounterStatus) bool {
	next.LastReportTime = old.LastReportTime
	return !equality.Semantic.DeepEqual(old, next)
}
