// SPDX-License-Identifier: Apache-2.0

package uninstall

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The permissions to stop the controller and to hold its lease, so that no controller runs during the uninstallation. A rule
// with resourceNames cannot allow create, because the name is not known when the request is authorized. Leader election
// records events.
// +kubebuilder:rbac:namespace=xdp-operator-system,groups=apps,resources=deployments/scale,resourceNames=xdp-operator-controller,verbs=patch
// +kubebuilder:rbac:namespace=xdp-operator-system,groups=coordination.k8s.io,resources=leases,verbs=create
// +kubebuilder:rbac:namespace=xdp-operator-system,groups=coordination.k8s.io,resources=leases,resourceNames=xdp-operator-controller,verbs=get;update;delete
// +kubebuilder:rbac:namespace=xdp-operator-system,groups="",resources=events,verbs=create;patch

// Controller is the controller that an uninstallation stops. Its methods return no error for objects that do not exist.
type Controller struct {
	Client    client.Client // without a cache
	Namespace string
	Name      string // of its Deployment and of its lease
}

// End scales the Deployment to zero.
func (c Controller) End(ctx context.Context) error {
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: c.Name, Namespace: c.Namespace}}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":0}}`))
	err := c.Client.SubResource("scale").Patch(ctx, deployment, patch, client.WithSubResourceBody(&autoscalingv1.Scale{}))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("stop the controller: %w", err)
	}
	return nil
}

// TakeLease writes another holder into the lease. It stops a controller whose pod cannot be deleted because its kubelet is
// unreachable: that controller ends after it could not renew the lease for ten seconds. The lease expires five seconds later.
func (c Controller) TakeLease(ctx context.Context, now time.Time) error {
	lease := &coordinationv1.Lease{}
	if err := c.Client.Get(ctx, types.NamespacedName{Namespace: c.Namespace, Name: c.Name}, lease); err != nil {
		return client.IgnoreNotFound(err)
	}
	holder, seconds, since := "xdp-operator-uninstall", int32(15), metav1.NewMicroTime(now)
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds = &holder, &seconds
	lease.Spec.AcquireTime, lease.Spec.RenewTime = &since, &since
	if err := c.Client.Update(ctx, lease); err != nil {
		return fmt.Errorf("take the lease: %w", err)
	}
	return nil
}

// DeleteLease deletes the lease. Kubernetes does not.
func (c Controller) DeleteLease(ctx context.Context) error {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: c.Name, Namespace: c.Namespace}}
	if err := c.Client.Delete(ctx, lease); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete the lease: %w", err)
	}
	return nil
}
