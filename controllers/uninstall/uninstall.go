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
	// look is how often the agents' progress is looked at.
	look = 200 * time.Millisecond
	// settleEvery is after how many node states the counters take up what they have counted. What is not taken up is
	// listed node by node in the counter's status, which must not grow beyond what an object may have.
	settleEvery = 20
)

// The rights of an uninstallation in the cluster: those of the controllers, but for making node states.
// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=xdp-operator.io,resources=xdpcounters,verbs=get;list;watch
// +kubebuilder:rbac:groups=xdp-operator.io,resources=xdpcounters/status,verbs=patch
// +kubebuilder:rbac:groups=xdp-operator.io,resources=xdpnodestates,verbs=get;list;watch;update;delete

// Uninstaller makes the agents detach, and the node states go. No other controller may work meanwhile.
type Uninstaller struct {
	View       *View                // what the two reconcilers see
	NodeStates reconcile.Reconciler // controllers.NodeStateReconciler
	Counters   reconcile.Reconciler // controllers.XDPCounterReconciler
	// Timeout is how long to wait for the agents, and then how long the node states may take to go. An agent that does
	// not report in time loses what it counted since its last report; what it attached stays until its node is swept.
	Timeout time.Duration
}

// Run returns the nodes whose agents did not say that they have detached everything, in no order. It returns an error if
// node states are left, after which it may be called again. What is done already is not done twice.
func (u *Uninstaller) Run(ctx context.Context) (silent []string, err error) {
	log := ctrl.LoggerFrom(ctx)
	u.View.stage.Store(suspended)
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
			silent = append(silent, states[i].Name)
		}
	}
	u.View.stage.Store(deserted)
	log.Info("Adding up what the nodes have counted", "nodes", len(states), "silent", len(silent))
	if err := u.until(ctx, func(*v1alpha1.XDPNodeState) bool { return true }); err != nil {
		return silent, err
	}
	if states, err = u.states(ctx); err != nil {
		return silent, err
	}
	if len(states) > 0 {
		return silent, fmt.Errorf("%d node states are left, of %s", len(states), format.FirstFew(names(states)))
	}
	u.View.stage.Store(over)
	return silent, u.tell(ctx)
}

// detached reports whether the node's agent says that it holds nothing. One that has never reported has attached
// nothing.
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

// until reconciles all node states and counters until no state is pending any more, or the time is over.
func (u *Uninstaller) until(ctx context.Context, pending func(*v1alpha1.XDPNodeState) bool) error {
	// What is under way when the time is over is not cut off: ctx is that of the caller.
	err := wait.PollUntilContextTimeout(ctx, look, u.Timeout, true, func(context.Context) (bool, error) {
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
			errs = append(errs, one(ctx, u.NodeStates, &states[i]))
			if left%settleEvery == 0 {
				errs = append(errs, u.counters(ctx))
			}
		}
		errs = append(errs, u.counters(ctx))
		if err := errors.Join(errs...); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Trying again")
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

func (u *Uninstaller) counters(ctx context.Context) error {
	list := &v1alpha1.XDPCounterList{}
	if err := u.View.List(ctx, list); err != nil {
		return fmt.Errorf("list counters: %w", err)
	}
	var errs []error
	for i := range list.Items {
		errs = append(errs, one(ctx, u.Counters, &list.Items[i]))
	}
	return errors.Join(errs...)
}

func one(ctx context.Context, r reconcile.Reconciler, object client.Object) error {
	_, err := r.Reconcile(ctx, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(object)})
	return err
}

func (u *Uninstaller) states(ctx context.Context) ([]v1alpha1.XDPNodeState, error) {
	list := &v1alpha1.XDPNodeStateList{}
	if err := u.View.List(ctx, list); err != nil {
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

// tell says in each counter that nobody counts for it any more. The next controller puts that right.
func (u *Uninstaller) tell(ctx context.Context) error {
	list := &v1alpha1.XDPCounterList{}
	if err := u.View.Client.List(ctx, list); err != nil {
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
				Message: "xdp-operator was uninstalled: nothing is counted; the totals are kept", ObservedGeneration: counter.Generation,
			})
		}
		// The conditions are all that changes. Whoever still writes the whole status does so on condition that the object
		// is as he read it, and cannot read it again.
		err := u.View.Status().Patch(ctx, counter, client.MergeFrom(base), client.FieldOwner("xdp-operator"))
		if client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("tell of the end in counter %s: %w", counter.Name, err))
		}
	}
	return errors.Join(errs...)
}
