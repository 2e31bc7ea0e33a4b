package uninstall

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// NamespaceGrace is an Uninstaller's Timeout for a namespace that is being deleted: Kubernetes begins with its contents
// after five seconds, and gives its pods thirty more.
const NamespaceGrace = 20 * time.Second

// namespaceLook is how often it is looked at.
const namespaceLook = time.Second

// NamespaceEnd is a manager.Runnable that lets the agents detach when the controller's own namespace is being deleted.
// That takes the agents away without a word, and the hook of the chart is not run for it. Its right is in
// config/rbac/namespace_role.yaml: a Role, since a namespace is in itself.
type NamespaceEnd struct {
	Live        client.Reader // without a cache
	Namespace   string        // empty: nothing to look at
	Uninstaller *Uninstaller
}

// Start looks until the namespace is being deleted or ctx is done.
func (n *NamespaceEnd) Start(ctx context.Context) error {
	if n.Namespace == "" {
		return nil
	}
	log := ctrl.Log.WithName("namespace")
	forbidden := false
	_ = wait.PollUntilContextCancel(ctx, namespaceLook, false, func(ctx context.Context) (bool, error) {
		namespace := &corev1.Namespace{}
		err := n.Live.Get(ctx, types.NamespacedName{Name: n.Namespace}, namespace)
		forbidden = apierrors.IsForbidden(err)
		return forbidden || err == nil && !namespace.DeletionTimestamp.IsZero(), nil
	}) // it ends with ctx, or because there is something to do
	switch {
	case forbidden:
		log.Info("Not told whether the namespace is being deleted", "namespace", n.Namespace)
	case ctx.Err() == nil:
		log.Info("The namespace is being deleted")
		silent, err := n.Uninstaller.Run(ctrl.LoggerInto(ctx, log))
		log.Info("The agents were told to detach", "silent", v1alpha1.FirstFew(silent), "error", fmt.Sprint(err))
	}
	return nil
}
