// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"unique"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// CacheOptions returns the options of the controllers' caches. The caches keep only the fields that the controllers read.
func CacheOptions() cache.Options {
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Node{}:           {Transform: stripUnusedFields(stripNode)},
			&v1alpha1.XDPNodeState{}: {Transform: stripUnusedFields(stripNodeState)},
		},
	}
}

// stripUnusedFields returns a cache transform that removes what strip removes.
func stripUnusedFields[T client.Object](strip func(T)) func(any) (any, error) {
	return func(object any) (any, error) {
		if o, ok := object.(T); ok {
			strip(o)
		}
		return object, nil
	}
}

// stripNode keeps name, labels and the Ready condition.
func stripNode(node *corev1.Node) {
	ready := readyOf(node)
	node.ManagedFields, node.Annotations, node.Spec, node.Status = nil, nil, corev1.NodeSpec{}, corev1.NodeStatus{}
	if ready != nil {
		node.Status.Conditions = []corev1.NodeCondition{{Type: ready.Type, Status: ready.Status, Reason: ready.Reason, LastTransitionTime: ready.LastTransitionTime}}
	}
}

// stripNodeState removes what only the agent reads: the counts per map, drivers, conditions. The controllers do not write
// the status, so what is missing in the cache is not removed from the object. Of the managed fields only ReportStoredAt is kept.
// Strings that many node states have in common are stored once.
func stripNodeState(state *v1alpha1.XDPNodeState) {
	stored := state.ReportStoredAt()
	state.ManagedFields = nil
	if !stored.IsZero() {
		state.ManagedFields = []metav1.ManagedFieldsEntry{{Subresource: "status", Time: &metav1.Time{Time: stored}}}
	}
	intern := func(s *string) { *s = unique.Make(*s).Value() }
	internUID := func(uid *types.UID) { *uid = types.UID(unique.Make(string(*uid)).Value()) }
	for i := range state.Spec.Counters {
		c := &state.Spec.Counters[i]
		intern(&c.Name)
		internUID(&c.UID)
	}
	s := &state.Status
	s.Agent, s.Conditions = nil, nil
	for i := range s.Interfaces {
		n := &s.Interfaces[i]
		n.Driver, n.Counts = "", nil
		intern(&n.Name)
		for j := range n.Counters {
			internUID(&n.Counters[j])
		}
	}
	for i := range s.OmittedInterfaces {
		internUID(&s.OmittedInterfaces[i].UID)
	}
	for i := range s.Accounts {
		a := &s.Accounts[i]
		internUID(&a.UID)
		for j := range a.Counts {
			intern(&a.Counts[j].Class)
		}
	}
}
