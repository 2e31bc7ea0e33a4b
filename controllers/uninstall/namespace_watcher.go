// SPDX-License-Identifier: Apache-2.0

package uninstall

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/internal/format"
)

// NamespaceGrace is the Timeout of an Uninstaller that runs because its namespace is being deleted. Kubernetes starts to
// delete the contents of the namespace after five seconds, and gives the pods thirty more.
const NamespaceGrace = 20 * time.Second

// namespaceInterval is how often NamespaceWatcher reads the namespace.
const namespaceInterval = time.Second

// NamespaceWatcher is a manager.Runnable that makes the agents detach when the controller's own namespace is being deleted.
// The deletion removes the agents without notice, and Helm does not run the hook of the chart for it. The permission to
// read the namespace is in config/rbac/namespace_role.yaml. A Role is sufficient, since a namespace is an object in itself.
type NamespaceWatcher struct {
	Live        client.Reader // without a cache
	Namespace   string        // empty: Start returns at once
	Uninstaller *Uninstaller
}

// Start returns when ctx is done, or when the agents have detached because the namespace is being deleted.
func (n *NamespaceWatcher) Start(ctx context.Context) error {
	if n.Namespace == "" {
		return nil
	}
	log := ctrl.LoggerFrom(ctx).WithName("namespace")
	logged := false // that reading is forbidden
	_ = wait.PollUntilContextCancel(ctx, namespaceInterval, false, func(ctx context.Context) (bool, error) {
		namespace := &corev1.Namespace{}
		err := n.Live.Get(ctx, types.NamespacedName{Name: n.Namespace}, namespace)
		if apierrors.IsForbidden(err) && !logged { // the Role may be created later, if all objects are applied together
			log.Info("No permission to see whether the namespace is being deleted", "namespace", n.Namespace)
			logged = true
		}
		return err == nil && !namespace.DeletionTimestamp.IsZero(), nil
	}) // the only error is that of ctx, which is checked below
	if ctx.Err() == nil {
		log.Info("The namespace is being deleted")
		n.detach(ctrl.LoggerInto(ctx, log))
	}
	return nil
}

func (n *NamespaceWatcher) detach(ctx context.Context) {
	log := ctrl.LoggerFrom(ctx)
	attached, err := n.Uninstaller.Run(ctx)
	if err != nil {
		log.Error(err, "The uninstallation is not complete", "stillAttached", format.FirstFew(attached))
		return
	}
	log.Info("The uninstallation is complete", "stillAttached", format.FirstFew(attached))
}
