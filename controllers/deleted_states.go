// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// deletedStates holds the last version of each node state that somebody else deleted, until its share is copied to the
// counters like that of a departed node. Only a running controller is notified of a deletion, and only once: the share of a
// node state that is deleted while no controller runs, or while the watch is interrupted, is lost.
//
// No share is added twice. The controller marks a node state before it copies the share itself. A share that is copied from
// here is identified by the UID of its node state in status.retired.departing, at least until it is copied to all counters
// and the node is gone.
type deletedStates struct {
	mu     sync.Mutex
	states map[types.UID]*v1alpha1.XDPNodeState
}

// add records a node state that was deleted, unless it has no share or its share is retired already. It reports whether it
// did.
func (d *deletedStates) add(state *v1alpha1.XDPNodeState) bool {
	if retiring(state) || len(state.Status.Accounts) == 0 {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.states == nil {
		d.states = map[types.UID]*v1alpha1.XDPNodeState{}
	}
	d.states[state.UID] = state
	return true
}

// of returns the recorded states of a node, in no particular order.
func (d *deletedStates) of(node string) []*v1alpha1.XDPNodeState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Collect(maps.Values(d.states)), func(s *v1alpha1.XDPNodeState) bool { return s.Name != node })
}

// has reports whether the node state with the UID is recorded.
func (d *deletedStates) has(state types.UID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.states[state] != nil
}

func (d *deletedStates) forget(state *v1alpha1.XDPNodeState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.states, state.UID)
}
