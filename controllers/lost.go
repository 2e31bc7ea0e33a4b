package controllers

import (
	"context"
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// lost holds the last of each node state that was deleted by somebody else, until its share is copied as that of a
// departed node is. Its deletion is told once and to a running controller only: what is deleted while none runs, or
// while its watch is interrupted, is lost.
//
// No share is added twice: what a controller has begun to copy is marked before, and what is copied from here stays
// known by its UID in status.retired.departing while the node is there, and until it is copied to all counters.
type lost struct {
	mu     sync.Mutex
	states map[types.UID]*v1alpha1.XDPNodeState
}

// add takes up a state that is gone, unless its share is retired already or there is none. It reports whether it did.
func (l *lost) add(state *v1alpha1.XDPNodeState) bool {
	if retiring(state) || len(state.Status.Accounts) == 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.states == nil {
		l.states = map[types.UID]*v1alpha1.XDPNodeState{}
	}
	l.states[state.UID] = state
	return true
}

// of returns the states of a node, in no order.
func (l *lost) of(node string) []*v1alpha1.XDPNodeState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Collect(maps.Values(l.states)), func(s *v1alpha1.XDPNodeState) bool { return s.Name != node })
}

func (l *lost) has(state types.UID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.states[state] != nil
}

func (l *lost) forget(state *v1alpha1.XDPNodeState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.states, state.UID)
}

// onDeleted takes up node states that are deleted. A state of which the watch missed the end is left out: it may have
// been retired since.
func (r *NodeStateReconciler) onDeleted() handler.EventHandler {
	return handler.Funcs{DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) {
		if state, ok := e.Object.(*v1alpha1.XDPNodeState); ok && !e.DeleteStateUnknown && r.lost.add(state) {
			q.Add(request(state.Name))
		}
	}}
}
