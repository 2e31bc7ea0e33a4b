// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/memapi"
)

// departureEnv is a cluster with one counter and one node with 7 packets.
type departureEnv struct {
	t        *testing.T
	live     *memapi.Client
	client   *memapi.Client // of the controller
	nodes    *NodeStateReconciler
	counters *XDPCounterReconciler
}

func newDepartureEnv(t *testing.T) *departureEnv {
	t.Helper()
	e := &departureEnv{t: t}
	clock := testclock.NewFakeClock(now)
	server := memapi.New(clock.Now)
	e.live = &memapi.Client{Server: server}
	a, n1 := counter("a").Obj(), node("n1", "")
	e.must(e.live.Create(t.Context(), &a))
	e.must(e.live.Create(t.Context(), &n1))
	s := state("n1").For(string(a.UID), 7).Obj()
	status := s.Status
	e.must(e.live.Create(t.Context(), &s))
	s.Status = status
	e.must(e.live.Status().Update(t.Context(), &s))

	e.client = &memapi.Client{Server: server, Cache: server.NewCache()}
	e.nodes = &NodeStateReconciler{Client: e.client, Live: e.live, Clock: clock}
	e.counters = &XDPCounterReconciler{Client: e.client, Live: e.live, Clock: clock, Events: &recorder{}, Rescuing: e.nodes.Rescuing}
	return e
}

func (e *departureEnv) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

// see updates the controller's cache.
func (e *departureEnv) see(kinds ...memapi.Kind) {
	for _, kind := range kinds {
		for more := true; more; {
			_, more = e.client.Cache.Next(kind)
		}
	}
}

func (e *departureEnv) reconcile(r reconcile.Reconciler, name string) error {
	_, err := r.Reconcile(context.Background(), request(name))
	return err
}

func (e *departureEnv) expectTotal(want int64) {
	e.t.Helper()
	x := &v1alpha1.XDPCounter{}
	e.must(e.live.Get(e.t.Context(), types.NamespacedName{Name: "a"}, x))
	if got := x.Status.Total.Packets; got != want {
		e.t.Errorf("the total is %d packets, want %d; retired %+v", got, want, x.Status.Retired)
	}
}

// add writes a report of the node with more packets.
func (e *departureEnv) add(packets int64) {
	e.t.Helper()
	x, s := &v1alpha1.XDPCounter{}, &v1alpha1.XDPNodeState{}
	e.must(e.live.Get(e.t.Context(), types.NamespacedName{Name: "a"}, x))
	e.must(e.live.Get(e.t.Context(), types.NamespacedName{Name: "n1"}, s))
	account := s.Account(x.UID)
	if account == nil {
		s.Status.Accounts = []v1alpha1.CounterAccount{{UID: x.UID}}
		account = &s.Status.Accounts[0]
	}
	account.Counts = tcp(int64(account.Sum().Packets) + packets)
	e.must(e.live.Status().Update(e.t.Context(), s))
}

func TestRetireNodeThatJoinsAgain(t *testing.T) {
	e := newDepartureEnv(t)
	n1 := node("n1", "")
	e.must(e.live.Delete(t.Context(), &n1))
	e.see(memapi.Kinds()...)
	e.client.Fault = func(point string) error {
		if point == "before delete" {
			return errFault // as if the controller crashed here
		}
		return nil
	}
	if err := e.reconcile(e.nodes, "n1"); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	e.client.Fault = nil
	n1 = node("n1", "")
	e.must(e.live.Create(t.Context(), &n1))
	for range 2 { // first the old node state is deleted, then a new one is created
		e.see(memapi.Kinds()...)
		e.must(e.reconcile(e.nodes, "n1"))
	}
	e.add(2)
	e.see(memapi.Kinds()...)
	e.must(e.reconcile(e.counters, "a"))
	e.expectTotal(9)
}

func TestRetireWithOutdatedCacheAddsOnce(t *testing.T) {
	e := newDepartureEnv(t)
	n1 := node("n1", "")
	e.must(e.live.Delete(t.Context(), &n1))
	e.see(memapi.Nodes)
	e.must(e.reconcile(e.nodes, "n1"))
	e.see(memapi.Counters)
	for range 2 {
		e.must(e.reconcile(e.counters, "a"))
		e.see(memapi.Counters)
		e.expectTotal(7)
		e.must(e.reconcile(e.nodes, "n1")) // a second request for the node
		e.see(memapi.Counters)
	}
	e.see(memapi.Kinds()...)
	e.must(e.reconcile(e.counters, "a"))
	e.expectTotal(7)
}

// After a change of the leader, the caches of the new leader may be older than what the previous leader wrote.
func TestRetireAfterChangeOfLeader(t *testing.T) {
	e := newDepartureEnv(t)
	n1 := node("n1", "")
	e.must(e.live.Delete(t.Context(), &n1))
	other := &departureEnv{
		t: t, live: e.live, nodes: &NodeStateReconciler{Client: e.live, Live: e.live, Clock: e.counters.Clock},
		counters: &XDPCounterReconciler{Client: e.live, Live: e.live, Clock: e.counters.Clock, Events: &recorder{}},
	}
	e.live.Fault = func(point string) error {
		if point == "before delete" {
			return errFault
		}
		return nil
	}
	if err := e.reconcile(other.nodes, "n1"); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	e.live.Fault = nil
	e.see(memapi.Kinds()...)

	behind := &memapi.Client{Server: e.live.Server, Cache: e.live.Server.NewCache()}
	behind.Cache.Forget(memapi.NodeStates, "n1") // as if it had not received the node state yet
	e.must(e.reconcile(&XDPCounterReconciler{Client: behind, Live: e.live, Clock: e.counters.Clock, Events: &recorder{}}, "a"))
	e.must(e.reconcile(other.counters, "a"))
	e.expectTotal(7)

	e.must(e.reconcile(other.nodes, "n1"))
	e.must(e.reconcile(other.counters, "a")) // merges the copy
	e.see(memapi.Counters)
	e.must(e.reconcile(e.nodes, "n1")) // its cache still has the node state
	e.must(e.reconcile(other.counters, "a"))
	e.expectTotal(7)
}

func TestDeletedNodeStateIsAddedOnce(t *testing.T) {
	e := newDepartureEnv(t)
	s := &v1alpha1.XDPNodeState{}
	e.must(e.live.Get(t.Context(), types.NamespacedName{Name: "n1"}, s))
	e.must(e.live.Delete(t.Context(), s))
	deleted := func(unknown bool) {
		q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
		defer q.ShutDown()
		e.nodes.onDeleted().Delete(t.Context(), event.DeleteEvent{Object: s, DeleteStateUnknown: unknown}, q)
		if q.Len() == 0 != unknown {
			t.Errorf("with DeleteStateUnknown %v there are %d requests", unknown, q.Len())
		}
	}
	deleted(true)
	deleted(false)
	for range 2 { // the response to the first copy is lost
		e.see(memapi.Kinds()...)
		lose := errFault
		e.client.Fault = func(point string) error {
			if point == "after patch status" {
				defer func() { lose = nil }()
				return lose
			}
			return nil
		}
		_ = e.reconcile(e.nodes, "n1")
		e.client.Fault = nil
		e.see(memapi.Kinds()...)
		e.must(e.reconcile(e.counters, "a"))
		e.expectTotal(7)
	}
	e.must(e.reconcile(e.nodes, "n1"))
	e.add(2)
	e.see(memapi.Kinds()...)
	e.must(e.reconcile(e.counters, "a"))
	e.expectTotal(9)

	// The node departs: the new share is added, and the old one is merged.
	e.must(e.live.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}))
	e.see(memapi.Kinds()...)
	e.must(e.reconcile(e.nodes, "n1"))
	e.see(memapi.Kinds()...)
	e.must(e.reconcile(e.counters, "a"))
	e.expectTotal(9)
	x := &v1alpha1.XDPCounter{}
	e.must(e.live.Get(t.Context(), client.ObjectKey{Name: "a"}, x))
	if len(x.Status.Retired.Departing) != 0 {
		t.Errorf("the copy is not merged: %+v", x.Status.Retired)
	}
}
