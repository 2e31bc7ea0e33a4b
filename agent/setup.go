// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// The agent's rights: to see and report its own node state. Which one is its own is for an admission policy to say
// (config/admission), as far as it writes. RBAC could grant a watch of one name only to a role per node, and admission
// does not see reads. To list is no more than to watch; API servers before Kubernetes 1.34 need it.
// +kubebuilder:rbac:groups=xdp-operator.io,resources=xdpnodestates,verbs=get;list;watch
// +kubebuilder:rbac:groups=xdp-operator.io,resources=xdpnodestates/status,verbs=update

// CacheOptions lets an agent's cache hold its own node state and nothing else.
func CacheOptions(node string) cache.Options {
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&v1alpha1.XDPNodeState{}: {Field: fields.OneTermEqualSelector("metadata.name", node)},
		},
	}
}

// Mapper knows the one kind that an agent deals with. So nothing has to be asked of the API server for an agent to start,
// and one that starts while it is away waits instead of ending.
func Mapper(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	m := meta.NewDefaultRESTMapper([]schema.GroupVersion{v1alpha1.GroupVersion})
	m.Add(v1alpha1.GroupVersion.WithKind("XDPNodeState"), meta.RESTScopeRoot)
	return m, nil
}

// SetupWithManager makes the manager call Reconcile when the spec of the own node state changes and whenever
// changed yields, which it shall do once at the start and on each change of the node's interfaces.
func (a *Agent) SetupWithManager(mgr ctrl.Manager, changed <-chan struct{}) error {
	request := reconcile.Request{NamespacedName: types.NamespacedName{Name: a.Node}}
	interfaces := source.Func(func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		go func() {
			for {
				select {
				case <-ctx.Done():
					return
				case _, open := <-changed:
					if !open {
						return
					}
					queue.Add(request)
				}
			}
		}()
		return nil
	})
	return ctrl.NewControllerManagedBy(mgr).
		Named("agent").
		// An agent's own report changes the status only and does not wake it.
		For(&v1alpha1.XDPNodeState{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WatchesRawSource(interfaces).
		WithOptions(controller.Options{
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](100*time.Millisecond, 5*time.Second),
		}).
		Complete(a)
}
