// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/memapi"
)

// This file has what the random histories compare of late agents.

// checkLateness checks that a new status calls no agent late that has reported within the last minute.
func (e *historyEnv) checkLateness(was client.Object, x *v1alpha1.XDPCounter) {
	var before []string
	if old, ok := was.(*v1alpha1.XDPCounter); ok {
		before = lateNodes(old)
	}
	for _, name := range lateNodes(x) {
		if slices.Contains(before, name) {
			continue // the retired share is written without the rest
		}
		if at, ok := e.received[name]; ok && e.Clock.Since(at) < time.Minute {
			e.Fatalf("counter %s says that %s is late, whose report arrived %v ago", x.UID, name, e.Clock.Since(at))
		}
	}
}

// lateNodes returns the nodes whose agents are late.
func lateNodes(x *v1alpha1.XDPCounter) (names []string) {
	for _, f := range x.Status.Failures {
		if f.Reason == v1alpha1.ReasonAgentNotReporting || f.Reason == v1alpha1.ReasonNodeUnreachable {
			names = append(names, f.Node)
		}
	}
	return names
}

// receive notes that the controller receives a report, or a new node state, unless that is what it starts with.
func (e *historyEnv) receive(change memapi.Change) {
	before, _ := change.Old.(*v1alpha1.XDPNodeState)
	after, ok := change.New.(*v1alpha1.XDPNodeState)
	switch {
	case !ok, after.Status.ReportTime == nil && before != nil: // deleted, or emptied by hand
		delete(e.received, before.Name)
	case !e.counters.reports.hasStarted():
	case before == nil || before.UID != after.UID || !before.Status.ReportTime.Equal(after.Status.ReportTime):
		e.received[after.Name] = e.Clock.Now()
	}
}

// kubelet stops the kubelet of a node, or starts it again. Its agent goes on.
func (e *historyEnv) kubelet(node *corev1.Node) {
	gone := !unreachableSince(node).IsZero()
	node.Status.Conditions = nil
	if !gone {
		*node = unreachable(*node, e.Clock.Now().Add(e.Skew()))
	}
	e.Must(e.Live.Status().Update(context.Background(), node))
	e.Logf("node %s is unreachable: %v", node.Name, !gone)
}

// compareLateness compares which agents are late: none of those that have just reported; all after an hour without reports, also
// for a controller that starts then; and none after the next reports.
func (e *historyEnv) compareLateness() {
	reconcile := func() {
		e.wake()
		for range 100 {
			for _, kind := range memapi.Kinds() {
				for e.deliver(kind) {
				}
			}
			if !e.reconcileOne() {
				return
			}
		}
		e.Fatalf("no rest")
	}
	expect := func(what string, late bool) {
		for _, x := range e.allCounters() {
			want := 0
			if late {
				want = int(x.Status.Nodes.Selected)
			}
			if names := lateNodes(&x); len(names) != want {
				e.Fatalf("%s: counter %s has %d late agents, want %d: %v; %+v", what, x.UID, len(names), want, names, e.counters.reports.seen)
			}
		}
	}
	expect("all have reported", false)
	e.Clock.Step(time.Hour)
	reconcile()
	expect("after an hour", true)
	e.startController()
	reconcile()
	expect("another controller after an hour", true)
	for _, name := range namesOf(e, &v1alpha1.XDPNodeStateList{}) {
		if state := (&v1alpha1.XDPNodeState{}); e.Exists(name, state) {
			e.report(state)
		}
	}
	reconcile()
	expect("all have reported again", false)
}
