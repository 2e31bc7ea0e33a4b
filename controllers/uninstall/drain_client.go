// Package uninstall lets a cluster be left as it was found: all agents save their counts and detach, what each node has
// counted is added to the totals of the XDPCounters, and the node states go.
//
// It is the controllers' own work, done by them: first they are shown a cluster in which every XDPCounter is suspended,
// then one that has no nodes any more. So the same steps keep the totals exact, whatever is killed between any two of
// them, and there is nothing that only an uninstallation does.
package uninstall

import (
	"context"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// View is a client that shows the reconcilers the cluster as it is, until an Uninstaller shows another one.
type View struct {
	client.Client
	stage atomic.Int32
}

// The stages of an uninstallation. None is ever left for an earlier one.
const (
	asItIs    int32 = iota
	suspended       // every XDPCounter looks suspended: agents save and detach, and keep their accounts
	deserted        // no Node seems left: accounts are added to the totals, and node states deleted
	over            // no XDPCounter seems left either: what is told of the end is not told otherwise again
)

// Get is that of the client, but for what the stage hides.
func (v *View) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	if _, ok := object.(*corev1.Node); ok && v.stage.Load() >= deserted {
		return apierrors.NewNotFound(corev1.Resource("nodes"), key.Name)
	}
	if _, ok := object.(*v1alpha1.XDPCounter); ok && v.stage.Load() == over {
		return apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("xdpcounters").GroupResource(), key.Name)
	}
	if err := v.Client.Get(ctx, key, object, options...); err != nil {
		return err
	}
	if counter, ok := object.(*v1alpha1.XDPCounter); ok {
		v.suspend(counter)
	}
	return nil
}

// List is that of the client, but for what the stage hides.
func (v *View) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	if nodes, ok := list.(*corev1.NodeList); ok && v.stage.Load() >= deserted {
		nodes.Items = nil
		return nil
	}
	if err := v.Client.List(ctx, list, options...); err != nil {
		return err
	}
	if counters, ok := list.(*v1alpha1.XDPCounterList); ok {
		for i := range counters.Items { // values of ours also where their pointers lead into the cache
			v.suspend(&counters.Items[i])
		}
	}
	return nil
}

func (v *View) suspend(counter *v1alpha1.XDPCounter) {
	if v.stage.Load() != asItIs {
		counter.Spec.Suspend = true
	}
}
