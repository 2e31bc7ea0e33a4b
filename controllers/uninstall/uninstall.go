// SPDX-License-Identifier: Apache-2.0

package uninstall

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/internal/format"
)

const (
	// passInterval is how often all node states and counters are reconciled while waiting.
	passInterval = 200 * time.Millisecond
	// mergeEvery is after how many node states the counters are reconciled, which adds the shares of deleted node states to
	// their totals. Until then each share is listed in the counter's status, whose size is limited.
	mergeEvery = 20
)

// The permissions of an uninstallation: those of the controllers without the creation of node states.
// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=xdp-operator.io,resources=xdpcounters,verbs=get;list;watch
// +kubebuilder:rbac:groups=xdp-operator.io,resources=xdpcounters/status,verbs=patch
// +kubebuilder:rbac:groups=xdp-operator.io,resources=xdpnodestates,verbs=get;list;watch;update;delete

// Uninstaller makes the agents detach and deletes the node states. No other controller may run at the same time.
type Uninstaller struct {
	Client     *DrainClient         // the client of both reconcilers
	NodeStates reconcile.Reconciler // controllers.NodeStateReconciler
	Counters   reconcile.Reconciler // controllers.XDPCounterReconciler
	// Timeout limits the wait for the agents, and then the deletion of the node states. If an agent does not report in time,
	// what it counted since its last report is lost, and its programs stay attached until its node is swept.
	Timeout time.Duration
}

// Run returns the nodes whose agents have not reported that everything is detached, in no particular order. It returns an
// error if node states are left. It may be called again then, and continues.
func (u *Uninstaller) Run(ctx context.Context) (attached []string, err error) {
	log := ctrl.LoggerFrom(ctx)
	u.Client.enter(stageCountersSuspended)
	log.Info("Waiting for the agents to save their counts and detach", "timeout", u.Timeout)
	if err := u.until(ctx, func(state *v1alpha1.XDPNodeState) bool { return !detached(state) }); err != nil {
		return nil, err
	}
	states, err := u.states(ctx)
	if err != nil {
		return nil, err
	}
	for i := range states {
		if !detached(&states[i]) {
			attached = append(attached, states[i].Name)
		}
	}
	u.Client.enter(stageNodesHidden)
	log.Info("Adding the counts of the nodes to the totals", "nodes", len(states), "stillAttached", len(attached))
	if err := u.until(ctx, func(*v1alpha1.XDPNodeState) bool { return true }); err != nil {
		return attached, err
	}
	if states, err = u.states(ctx); err != nil {
		return attached, err
	}
	if len(states) > 0 {
		return attached, fmt.Errorf("%s not deleted: %s",
			format.Count(len(states), "node state is", "node states are"), format.FirstFew(names(states)))
	}
	u.Client.enter(stageCountersHidden)
	return attached, u.setUninstalledCondition(ctx)
}

// detached reports whether the node's agent has reported that nothing is attached. An agent that has never reported has not
// attached anything.
func detached(state *v1alpha1.XDPNodeState) bool {
	s := state.Status
	if s.ObservedGeneration == 0 {
		return true
	}
	active := func() bool {
		for _, c := range state.Spec.Counters {
			if !c.Inactive {
				return true
			}
		}
		return false
	}
	return !active() && s.ObservedGeneration == state.Generation && len(s.Interfaces) == 0
}

// until reconciles all node states and counters until no node state is pending or the timeout has passed.
func (u *Uninstaller) until(ctx context.Context, pending func(*v1alpha1.XDPNodeState) bool) error {
	// Reconciles use the caller's ctx, so that the timeout does not interrupt them.
	err := wait.PollUntilContextTimeout(ctx, passInterval, u.Timeout, true, func(context.Context) (bool, error) {
		states, err := u.states(ctx)
		if err != nil {
			return false, err
		}
		left := 0
		var errs []error
		for i := range states {
			if !pending(&states[i]) {
				continue
			}
			left++
			errs = append(errs, reconcileObject(ctx, u.NodeStates, &states[i]))
			if left%mergeEvery == 0 {
				errs = append(errs, u.reconcileCounters(ctx))
			}
		}
		errs = append(errs, u.reconcileCounters(ctx))
		if err := errors.Join(errs...); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Retrying")
			return false, nil
		}
		return left == 0, nil
	})
	if ctx.Err() == nil && wait.Interrupted(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("wait for the agents: %w", err)
	}
	return nil
}

func (u *Uninstaller) reconcileCounters(ctx context.Context) error {
	list := &v1alpha1.XDPCounterList{}
	if err := u.Client.List(ctx, list); err != nil {
		return fmt.Errorf("list counters: %w", err)
	}
	var errs []error
	for i := range list.Items {
		errs = append(errs, reconcileObject(ctx, u.Counters, &list.Items[i]))
	}
	return errors.Join(errs...)
}

func reconcileObject(ctx context.Context, r reconcile.Reconciler, object client.Object) error {
	_, err := r.Reconcile(ctx, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(object)})
	return err
}

func (u *Uninstaller) states(ctx context.Context) ([]v1alpha1.XDPNodeState, error) {
	list := &v1alpha1.XDPNodeStateList{}
	if err := u.Client.List(ctx, list); err != nil {
		return nil, fmt.Errorf("list node states: %w", err)
	}
	return list.Items, nil
}

func names(states []v1alpha1.XDPNodeState) (names []string) {
	for i := range states {
		names = append(names, states[i].Name)
	}
	return names
}

// setUninstalledCondition reports in the status of each counter that nothing is counted any more. A controller that is
// installed later replaces it.
func (u *Uninstaller) setUninstalledCondition(ctx context.Context) error {
	list := &v1alpha1.XDPCounterList{}
	if err := u.Client.Client.List(ctx, list); err != nil {
		return fmt.Errorf("list counters: %w", err)
	}
	var errs []error
	for i := range list.Items {
		counter := &list.Items[i]
		base := counter.DeepCopy()
		meta.RemoveStatusCondition(&counter.Status.Conditions, v1alpha1.ConditionReconciling)
		for kind, status := range map[string]metav1.ConditionStatus{
			v1alpha1.ConditionReady:   metav1.ConditionUnknown,
			v1alpha1.ConditionStalled: metav1.ConditionTrue,
		} {
			meta.SetStatusCondition(&counter.Status.Conditions, metav1.Condition{
				Type: kind, Status: status, Reason: v1alpha1.ReasonUninstalled,
				Message: v1alpha1.FailureMessage(v1alpha1.ReasonUninstalled, "xdp-operator was uninstalled: nothing is counted; the totals are kept", ""), ObservedGeneration: counter.Generation,
			})
		}
		// The patch contains the conditions only. It cannot be overwritten: the reconciler applies the whole status only if
		// the counter has not changed since it was read, and can no longer read it.
		err := u.Client.Status().Patch(ctx, counter, client.MergeFrom(base), client.FieldOwner("xdp-operator"))
		if client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("set the conditions of counter %s: %w", counter.Name, err))
		}
	}
	return errors.Join(errs...)
}
