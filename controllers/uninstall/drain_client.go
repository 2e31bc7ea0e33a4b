// SPDX-License-Identifier: Apache-2.0

// Package uninstall removes what xdp-operator has left in a cluster: all agents save their counts and detach, the counts of
// each node are added to the totals of the XDPCounters, and the node states are deleted.
//
// The controllers' own reconcilers do this. First they see a cluster in which every XDPCounter is suspended, then a cluster
// without nodes. So an uninstallation takes the same steps as normal operation, and the totals are exact even if a process
// is killed between any two steps.
package uninstall

import (
	"context"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// DrainClient is the client of the reconcilers. It returns the objects of the cluster unchanged until an Uninstaller starts.
// From then on it changes or hides some of them, depending on the stage.
type DrainClient struct {
	client.Client
	stage atomic.Int32 // of type stage
}

// stage is a stage of an uninstallation. Stages follow each other in this order only.
type stage int32

const (
	stageNormal            stage = iota // nothing is changed or hidden
	stageCountersSuspended              // every XDPCounter is suspended: agents save and detach, and keep their accounts
	stageNodesHidden                    // no Node is returned: accounts are added to the totals, and node states are deleted
	stageCountersHidden                 // no XDPCounter is returned either: the reconcilers do not write their statuses again
)

func (d *DrainClient) enter(s stage)        { d.stage.Store(int32(s)) }
func (d *DrainClient) reached(s stage) bool { return stage(d.stage.Load()) >= s }

// Get implements client.Reader. It returns a NotFound error for objects that the stage hides.
func (d *DrainClient) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	if _, ok := object.(*corev1.Node); ok && d.reached(stageNodesHidden) {
		return apierrors.NewNotFound(corev1.Resource("nodes"), key.Name)
	}
	if _, ok := object.(*v1alpha1.XDPCounter); ok && d.reached(stageCountersHidden) {
		return apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("xdpcounters").GroupResource(), key.Name)
	}
	if err := d.Client.Get(ctx, key, object, options...); err != nil {
		return err
	}
	if counter, ok := object.(*v1alpha1.XDPCounter); ok {
		d.suspend(counter)
	}
	return nil
}

// List implements client.Reader. It leaves out nodes that the stage hides.
func (d *DrainClient) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	if nodes, ok := list.(*corev1.NodeList); ok && d.reached(stageNodesHidden) {
		nodes.Items = nil
		return nil
	}
	if err := d.Client.List(ctx, list, options...); err != nil {
		return err
	}
	if counters, ok := list.(*v1alpha1.XDPCounterList); ok {
		for i := range counters.Items { // copies, even if what they point to belongs to the cache
			d.suspend(&counters.Items[i])
		}
	}
	return nil
}

// suspend sets spec.suspend of a counter in memory.
func (d *DrainClient) suspend(counter *v1alpha1.XDPCounter) {
	if d.reached(stageCountersSuspended) {
		counter.Spec.Suspend = true
	}
}
