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
	log := ctrl.LoggerFrom(ctx).WithName("namespace")
	told := false // that it cannot be seen
	_ = wait.PollUntilContextCancel(ctx, namespaceLook, false, func(ctx context.Context) (bool, error) {
		namespace := &corev1.Namespace{}
		err := n.Live.Get(ctx, types.NamespacedName{Name: n.Namespace}, namespace)
		if apierrors.IsForbidden(err) && !told { // the right may come later, as everything that is applied together
			log.Info("Not told whether the namespace is being deleted", "namespace", n.Namespace)
			told = true
		}
		return err == nil && !namespace.DeletionTimestamp.IsZero(), nil
	}) // it ends with ctx, or because there is something to do
	if ctx.Err() == nil {
		log.Info("The namespace is being deleted")
		n.detach(ctrl.LoggerInto(ctx, log))
	}
	return nil
}

func (n *NamespaceEnd) detach(ctx context.Context) {
	log := ctrl.LoggerFrom(ctx)
	silent, err := n.Uninstaller.Run(ctx)
	if err != nil {
		log.Error(err, "Not all was done that an uninstallation does", "silent", format.FirstFew(silent))
		return
	}
	log.Info("The agents were told to detach", "silent", format.FirstFew(silent))
}
