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

// recorder keeps the events as a person would see them.
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

// telling is a cluster of two nodes whose counter's events are looked at.
type telling struct {
	t      *testing.T
	client *memapi.Client
	r      *XDPCounterReconciler
	to     *recorder
}

func newTelling(t *testing.T) *telling {
	t.Helper()
	clock := testclock.NewFakeClock(now)
	w := &telling{t: t, client: &memapi.Client{Server: memapi.New(clock.Now)}, to: &recorder{}}
	a, n1, n2 := counter("a").Obj(), node("n1", ""), node("n2", "")
	for _, create := range []error{w.client.Create(t.Context(), &a), w.client.Create(t.Context(), &n1), w.client.Create(t.Context(), &n2)} {
		if create != nil {
			t.Fatal(create)
		}
	}
	w.restart()
	return w
}

func (w *telling) restart() {
	w.r = &XDPCounterReconciler{Client: w.client, Live: w.client, Clock: testclock.NewFakeClock(now), Events: w.to}
}

// report lets the agents report these interfaces.
func (w *telling) report(node string, interfaces ...v1alpha1.NodeInterface) {
	w.t.Helper()
	ctx := context.Background()
	x := &v1alpha1.XDPCounter{}
	if err := w.client.Get(ctx, request("a").NamespacedName, x); err != nil {
		w.t.Fatal(err)
	}
	s := &v1alpha1.XDPNodeState{}
	if w.client.Get(ctx, request(node).NamespacedName, s) != nil {
		s.Name = node
		s.Spec.Counters = []v1alpha1.NodeCounter{{Name: "a", UID: x.UID, Generation: x.Generation}}
		if err := w.client.Create(ctx, s); err != nil {
			w.t.Fatal(err)
		}
	}
	s.Status.ObservedGeneration = s.Generation
	for i := range interfaces {
		interfaces[i].Counters = append(interfaces[i].Counters, x.UID)
	}
	s.Status.Interfaces = interfaces
	if err := w.client.Status().Update(ctx, s); err != nil {
		w.t.Fatal(err)
	}
}

// expect reconciles twice: the first time these events are sent, the second time none.
func (w *telling) expect(want ...string) {
	w.t.Helper()
	w.to.events = nil
	for range 2 {
		if _, err := w.r.Reconcile(context.Background(), request("a")); err != nil {
			w.t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, w.to.events); diff != "" {
		w.t.Errorf("events (-want +got):\n%s", diff)
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

func TestWhatHappensToInterfacesIsToldOnce(t *testing.T) {
	w := newTelling(t)
	w.expect()
	w.report("n1", attached("eth0", 7))
	w.expect() // n2 is waited for
	w.report("n2", attached("eth0", 7), attached("eth1", 8))
	w.expect("a Normal InterfacesAttached: 3 interfaces are being counted: n1/eth0, n2/eth0, n2/eth1")

	w.report("n1", detaching("eth0", 7), failed("eth0", v1alpha1.ReasonPending)) // the link was cut
	w.expect()
	w.report("n1", attached("eth0", 9))
	w.expect("a Normal InterfacesReattached: 1 interface is being counted again: n1/eth0 [n1]")
	w.report("n1", attached("eth0", 10)) // and again, between two looks
	w.expect("a Normal InterfacesReattached: 1 interface is being counted again: n1/eth0 [n1]")

	w.report("n1", failed("eth0", v1alpha1.ReasonXDPHookInUse))
	w.expect("a Warning InterfacesLost: 1 interface was lost and is not counted: n1/eth0 (XDPHookInUse) [n1]")
	w.report("n1", failed("eth0", v1alpha1.ReasonMTUTooLarge))
	w.expect("a Warning AttachFailed: 1 interface cannot be counted: n1/eth0 (MTUTooLarge) [n1]")
	w.report("n1", attached("eth0", 11))
	w.expect("a Normal InterfacesReattached: 1 interface is being counted again: n1/eth0 [n1]")

	w.report("n2", attached("eth9", 7), attached("eth1", 8)) // renamed
	w.expect()
	w.report("n1")
	w.report("n2", attached("eth9", 7), failed("eth2", v1alpha1.ReasonXDPHookInUse))
	w.expect(
		"a Normal InterfacesDetached: 2 interfaces are no longer counted: n1/eth0, n2/eth1",
		"a Warning AttachFailed: 1 interface cannot be counted: n2/eth2 (XDPHookInUse) [n2]",
	)
}

func TestAControllerThatStartsDoesNotRepeatWhatWasTold(t *testing.T) {
	w := newTelling(t)
	w.report("n1", attached("eth0", 7))
	w.report("n2", failed("eth0", v1alpha1.ReasonXDPHookInUse))
	w.expect(
		"a Warning AttachFailed: 1 interface cannot be counted: n2/eth0 (XDPHookInUse) [n2]",
		"a Normal InterfacesAttached: 1 interface is being counted: n1/eth0 [n1]",
	)
	w.restart()
	w.expect()

	w.restart() // meanwhile one more failed, and the other was mended
	w.report("n1", attached("eth0", 7), failed("eth1", v1alpha1.ReasonMTUTooLarge))
	w.report("n2", attached("eth0", 9))
	w.expect(
		"a Warning AttachFailed: 1 interface cannot be counted: n1/eth1 (MTUTooLarge) [n1]",
		"a Normal InterfacesReattached: 1 interface is being counted again: n2/eth0 [n2]",
	)
}

func TestAnEventIsSentOnlyAfterTheStatusIsWritten(t *testing.T) {
	w := newTelling(t)
	w.report("n1", attached("eth0", 7))
	w.report("n2", attached("eth0", 7))
	w.client.Fault = func(point string) error {
		if point == "before apply status" {
			return errFault
		}
		return nil
	}
	if _, err := w.r.Reconcile(context.Background(), request("a")); err == nil || len(w.to.events) > 0 {
		t.Errorf("with a write that fails (%v) the events are %q", err, w.to.events)
	}
	w.client.Fault = nil
	w.expect("a Normal InterfacesAttached: 2 interfaces are being counted: n1/eth0, n2/eth0")
}
