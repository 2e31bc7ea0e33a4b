package controllers

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// +kubebuilder:rbac:groups=xdp-operator.io,resources=xdpnotices,verbs=get;list;watch;create;update;delete

// NoticeReconciler keeps the XDPNotice, which tells all agents at once what their node states tell them one after another.
// It alone writes it.
type NoticeReconciler struct {
	Client client.Client
	Live   client.Reader // reads past the cache

	states atomic.Int64 // how many node states there were when last looked
}

// noticePatience is how often it is looked whether all node states tell of what the notice is to leave out.
const noticePatience = 5 * time.Second

// Reconcile brings the notice in line with the counters, whatever it was that asked for it.
func (r *NoticeReconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	notice, err := getNotice(ctx, r.Client)
	if err != nil {
		return ctrl.Result{}, err
	}
	counters := &v1alpha1.XDPCounterList{}
	if err := r.Client.List(ctx, counters, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, fmt.Errorf("list counters: %w", err)
	}
	states := &v1alpha1.XDPNodeStateList{}
	if err := r.Client.List(ctx, states, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, fmt.Errorf("list node states: %w", err)
	}
	r.states.Store(int64(len(states.Items)))
	list, waiting := announce(counters.Items, notice, states.Items)
	switch gone, err := r.gone(ctx, notice, counters.Items); {
	case err != nil:
		return ctrl.Result{}, err
	case !gone: // the cache does not have it yet
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	}
	if err := r.write(ctx, notice, list, len(counters.Items) == 0); err != nil {
		return again(err)
	}
	if waiting {
		return ctrl.Result{RequeueAfter: noticePatience}, nil
	}
	return ctrl.Result{}, nil
}

// gone reports whether the counters of which the notice tells, and the cache does not, are gone indeed: with them go their
// accounts.
func (r *NoticeReconciler) gone(ctx context.Context, notice *v1alpha1.XDPNotice, cached []v1alpha1.XDPCounter) (bool, error) {
	for _, told := range notice.Spec.Counters {
		if slices.ContainsFunc(cached, func(c v1alpha1.XDPCounter) bool { return c.UID == told.UID }) {
			continue
		}
		there, err := get(ctx, r.Live, types.NamespacedName{Name: told.Name}, &v1alpha1.XDPCounter{})
		if err != nil {
			return false, err
		}
		if there != nil && there.UID == told.UID {
			return false, nil
		}
	}
	return true, nil
}

// write makes the notice have the list, and nothing be written where it has it already. An empty one stays to the end: were
// it made anew its generation would begin anew too, which node states take in.
func (r *NoticeReconciler) write(ctx context.Context, notice *v1alpha1.XDPNotice, list []v1alpha1.NodeCounter, end bool) error {
	made := notice.UID != ""
	switch {
	case !made && len(list) == 0:
		return nil
	case !made:
		notice.Name, notice.Spec.Counters = v1alpha1.NoticeName, list
		if err := r.Client.Create(ctx, notice); err != nil {
			return fmt.Errorf("create notice: %w", err)
		}
	case end:
		if err := r.Client.Delete(ctx, notice, client.Preconditions{UID: &notice.UID, ResourceVersion: &notice.ResourceVersion}); err != nil {
			return fmt.Errorf("delete notice: %w", err)
		}
	case !equality.Semantic.DeepEqual(notice.Spec.Counters, list):
		notice.Spec.Counters = list
		if err := r.Client.Update(ctx, notice); err != nil {
			return fmt.Errorf("update notice: %w", err)
		}
	}
	return nil
}

// getNotice returns the notice, an empty one without a UID if there is none.
func getNotice(ctx context.Context, c client.Reader) (*v1alpha1.XDPNotice, error) {
	notice, err := get(ctx, c, types.NamespacedName{Name: v1alpha1.NoticeName}, &v1alpha1.XDPNotice{})
	if notice == nil {
		notice = &v1alpha1.XDPNotice{}
	}
	return notice, err
}
