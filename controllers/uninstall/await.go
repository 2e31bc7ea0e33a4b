// SPDX-License-Identifier: Apache-2.0

package uninstall

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// pollInterval is how often await calls its check.
const pollInterval = 500 * time.Millisecond

// The permission to see whether all nodes are swept.
// +kubebuilder:rbac:namespace=xdp-operator-system,groups=apps,resources=daemonsets,resourceNames=xdp-operator-sweep,verbs=get

// AwaitSweep waits until the pods of config/sweep are ready on all nodes. A pod is ready when its node is swept. After the
// timeout the error says what is missing.
func AwaitSweep(ctx context.Context, c client.Reader, namespace string, timeout time.Duration) error {
	return await(ctx, timeout, func(ctx context.Context) error {
		sweep := &appsv1.DaemonSet{}
		if err := c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: "xdp-operator-sweep"}, sweep); err != nil {
			return client.IgnoreNotFound(err)
		}
		return daemonSetReady(sweep)
	})
}

// AwaitWorking waits until the API server serves the kinds, a controller is available and the agents are ready on all nodes
// on which they are scheduled. After the timeout the error says what is missing.
func AwaitWorking(ctx context.Context, c client.Reader, namespace string, timeout time.Duration) error {
	return await(ctx, timeout, func(ctx context.Context) error {
		errs := []error{
			c.List(ctx, &v1alpha1.XDPCounterList{}, client.Limit(1)),
			c.List(ctx, &v1alpha1.XDPNodeStateList{}, client.Limit(1)),
		}
		controller, agents := &appsv1.Deployment{}, &appsv1.DaemonSet{}
		if err := c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: "xdp-operator-controller"}, controller); err != nil {
			errs = append(errs, err)
		} else if controller.Status.AvailableReplicas == 0 {
			errs = append(errs, errors.New("no controller is available"))
		}
		if err := c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: "xdp-operator-agent"}, agents); err != nil {
			errs = append(errs, err)
		} else {
			errs = append(errs, daemonSetReady(agents))
		}
		return errors.Join(errs...)
	})
}

// daemonSetReady returns an error if a pod of the DaemonSet is missing or not ready.
func daemonSetReady(d *appsv1.DaemonSet) error {
	s := d.Status
	if s.ObservedGeneration < d.Generation {
		return fmt.Errorf("the DaemonSet controller has not seen %s yet", d.Name)
	}
	if s.NumberReady < s.DesiredNumberScheduled {
		return fmt.Errorf("%s is ready on %d of %d nodes", d.Name, s.NumberReady, s.DesiredNumberScheduled)
	}
	return nil
}

// await calls check until it returns nil. After the timeout it returns the last error of check.
func await(ctx context.Context, timeout time.Duration, check func(context.Context) error) error {
	var missing error
	err := wait.PollUntilContextTimeout(ctx, pollInterval, timeout, true, func(ctx context.Context) (bool, error) {
		missing = check(ctx)
		return missing == nil, nil
	})
	if missing != nil {
		return missing
	}
	return err
}
