package agent

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
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

// The agent's rights: to see and report its own node state. Which one is its own is for an admission policy to
// say; RBAC cannot.
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
