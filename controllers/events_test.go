// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	testclock "k8s.io/utils/clock/testing"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/memapi"
)

// recorder records events as text.
type recorder struct {
	events.EventRecorder
	events []string
}

func (r *recorder) Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any) {
	text := fmt.Sprintf("%s %s %s: ", regarding.(*v1alpha1.XDPCounter).Name, kind, reason) + fmt.Sprintf(note, args...)
	if node, ok := related.(*corev1.Node); ok {
		text += " [" + node.Name + "]"
	}
	if action != "CountInterfaces" {
		text += " action " + action
	}
	r.events = append(r.events, text)
}

// eventEnv is a cluster with a counter and two nodes, and the events of the counter.
type eventEnv struct {
	t      *testing.T
	client *memapi.Client
	r      *XDPCounterReconciler
	to     *recorder
}

func newEventEnv(t *testing.T) *eventEnv {
	t.Helper()
	clock := testclock.NewFakeClock(now)
	e := &eventEnv{t: t, client: &memapi.Client{Server: memapi.New(clock.Now)}, to: &recorder{}}
	a, n1, n2 := counter("a").Obj(), node("n1", ""), node("n2", "")
	for _, create := range []error{e.client.Create(t.Context(), &a), e.client.Create(t.Context(), &n1), e.client.Create(t.Context(), &n2)} {
		if create != nil {
			t.Fatal(create)
		}
	}
	e.restart()
	return e
}

func (e *eventEnv) restart() {
	e.r = &XDPCounterReconciler{Client: e.client, Live: e.client, Clock: testclock.NewFakeClock(now), Events: e.to}
}

// report writes a report of a node with these interfaces.
func (e *eventEnv) report(node string, interfaces ...v1alpha1.NodeInterface) {
	e.t.Helper()
	ctx := context.Background()
	x := &v1alpha1.XDPCounter{}
	if err := e.client.Get(ctx, request("a").NamespacedName, x); err != nil {
		e.t.Fatal(err)
	}
	s := &v1alpha1.XDPNodeState{}
	if e.client.Get(ctx, request(node).NamespacedName, s) != nil {
		s.Name = node
		s.Spec.Counters = []v1alpha1.NodeCounter{{Name: "a", UID: x.UID, Generation: x.Generation}}
		if err := e.client.Create(ctx, s); err != nil {
			e.t.Fatal(err)
		}
	}
	s.Status.ObservedGeneration = s.Generation
	for i := range interfaces {
		interfaces[i].Counters = append(interfaces[i].Counters, x.UID)
	}
	s.Status.Interfaces = interfaces
	if err := e.client.Status().Update(ctx, s); err != nil {
		e.t.Fatal(err)
	}
}

// expect reconciles twice. It expects these events from the first time and none from the second.
func (e *eventEnv) expect(want ...string) {
	e.t.Helper()
	e.to.events = nil
	for range 2 {
		if _, err := e.r.Reconcile(context.Background(), request("a")); err != nil {
			e.t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, e.to.events); diff != "" {
		e.t.Errorf("events (-want +got):\n%s", diff)
	}
}

func attached(name string, id int64) v1alpha1.NodeInterface {
	return v1alpha1.NodeInterface{Name: name, Map: id, State: v1alpha1.InterfaceAttached, Mode: v1alpha1.AttachNative}
}

func failed(name, reason string) v1alpha1.NodeInterface {
	return v1alpha1.NodeInterface{Name: name, State: v1alpha1.InterfaceFailed, Reason: reason}
}

func detaching(name string, id int64) v1alpha1.NodeInterface {
	return v1alpha1.NodeInterface{Name: name, Map: id, State: v1alpha1.InterfaceDetaching}
}

func TestEventsAreSentOnce(t *testing.T) {
	e := newEventEnv(t)
	e.expect()
	e.report("n1", attached("eth0", 7))
	e.expect() // n2 has not reported yet
	e.report("n2", attached("eth0", 7), attached("eth1", 8))
	e.expect("a Normal InterfacesAttached: 3 interfaces are being counted: n1/eth0, n2/eth0, n2/eth1")

	e.report("n1", detaching("eth0", 7), failed("eth0", v1alpha1.ReasonPending)) // the link was detached by force
	e.expect()
	e.report("n1", attached("eth0", 9))
	e.expect("a Normal InterfacesReattached: 1 interface is being counted again: n1/eth0 [n1]")
	e.report("n1", attached("eth0", 10)) // and again, between two reports
	e.expect("a Normal InterfacesReattached: 1 interface is being counted again: n1/eth0 [n1]")

	e.report("n1", failed("eth0", v1alpha1.ReasonXDPHookInUse))
	e.expect("a Warning InterfacesLost: 1 interface was lost and is not counted: n1/eth0 (XDPHookInUse) [n1]")
	e.report("n1", failed("eth0", v1alpha1.ReasonMTUTooLarge))
	e.expect("a Warning AttachFailed: 1 interface cannot be counted: n1/eth0 (MTUTooLarge) [n1]")
	e.report("n1", attached("eth0", 11))
	e.expect("a Normal InterfacesReattached: 1 interface is being counted again: n1/eth0 [n1]")

	e.report("n2", attached("eth9", 7), attached("eth1", 8)) // renamed
	e.expect()
	e.report("n1")
	e.report("n2", attached("eth9", 7), failed("eth2", v1alpha1.ReasonXDPHookInUse))
	e.expect(
		"a Normal InterfacesDetached: 2 interfaces are no longer counted: n1/eth0, n2/eth1",
		"a Warning AttachFailed: 1 interface cannot be counted: n2/eth2 (XDPHookInUse) [n2]",
	)
}

func TestEventsAreNotRepeatedAfterRestart(t *testing.T) {
	e := newEventEnv(t)
	e.report("n1", attached("eth0", 7))
	e.report("n2", failed("eth0", v1alpha1.ReasonXDPHookInUse))
	e.expect(
		"a Warning AttachFailed: 1 interface cannot be counted: n2/eth0 (XDPHookInUse) [n2]",
		"a Normal InterfacesAttached: 1 interface is being counted: n1/eth0 [n1]",
	)
	e.restart()
	e.expect()

	e.restart() // another interface fails in the meantime, and the failed one recovers
	e.report("n1", attached("eth0", 7), failed("eth1", v1alpha1.ReasonMTUTooLarge))
	e.report("n2", attached("eth0", 9))
	e.expect(
		"a Warning AttachFailed: 1 interface cannot be counted: n1/eth1 (MTUTooLarge) [n1]",
		"a Normal InterfacesReattached: 1 interface is being counted again: n2/eth0 [n2]",
	)
}

func TestEventsAreSentAfterTheStatusIsWritten(t *testing.T) {
	e := newEventEnv(t)
	e.report("n1", attached("eth0", 7))
	e.report("n2", attached("eth0", 7))
	e.client.Fault = func(point string) error {
		if point == "before apply status" {
			return errFault
		}
		return nil
	}
	if _, err := e.r.Reconcile(context.Background(), request("a")); err == nil || len(e.to.events) > 0 {
		t.Errorf("the status write returned %v and the events are %q, want an error and none", err, e.to.events)
	}
	e.client.Fault = nil
	e.expect("a Normal InterfacesAttached: 2 interfaces are being counted: n1/eth0, n2/eth0")
}
