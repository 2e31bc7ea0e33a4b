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

// leaving is a cluster with one counter and one node on which it has counted 7 packets.
type leaving struct {
	t        *testing.T
	live     *memapi.Client
	client   *memapi.Client // of the controller
	nodes    *NodeStateReconciler
	counters *XDPCounterReconciler
}

func newLeaving(t *testing.T) *leaving {
	t.Helper()
	w := &leaving{t: t}
	clock := testclock.NewFakeClock(now)
	server := memapi.New(clock.Now)
	w.live = &memapi.Client{Server: server}
	a, n1 := counter("a").Obj(), node("n1", "")
	w.must(w.live.Create(t.Context(), &a))
	w.must(w.live.Create(t.Context(), &n1))
	s := state("n1").For(string(a.UID), 7).Obj()
	status := s.Status
	w.must(w.live.Create(t.Context(), &s))
	s.Status = status
	w.must(w.live.Status().Update(t.Context(), &s))

	w.client = &memapi.Client{Server: server, Cache: server.NewCache()}
	w.nodes = &NodeStateReconciler{Client: w.client, Live: w.live, Clock: clock}
	w.counters = &XDPCounterReconciler{Client: w.client, Live: w.live, Clock: clock, Events: &recorder{}, Rescuing: w.nodes.Rescuing}
	return w
}

func (w *leaving) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *leaving) see(kinds ...memapi.Kind) {
	for _, kind := range kinds {
		for more := true; more; {
			_, more = w.client.Cache.Next(kind)
		}
	}
}

func (w *leaving) reconcile(r reconcile.Reconciler, name string) error {
	_, err := r.Reconcile(context.Background(), request(name))
	return err
}

func (w *leaving) expectTotal(want int64) {
	w.t.Helper()
	x := &v1alpha1.XDPCounter{}
	w.must(w.live.Get(w.t.Context(), types.NamespacedName{Name: "a"}, x))
	if got := x.Status.Total.Packets; got != want {
		w.t.Errorf("the total is %d packets, want %d; retired %+v", got, want, x.Status.Retired)
	}
}

// add lets the agent of the node report more packets.
func (w *leaving) add(packets int64) {
	w.t.Helper()
	x, s := &v1alpha1.XDPCounter{}, &v1alpha1.XDPNodeState{}
	w.must(w.live.Get(w.t.Context(), types.NamespacedName{Name: "a"}, x))
	w.must(w.live.Get(w.t.Context(), types.NamespacedName{Name: "n1"}, s))
	account := s.Account(x.UID)
	if account == nil {
		s.Status.Accounts = []v1alpha1.CounterAccount{{UID: x.UID}}
		account = &s.Status.Accounts[0]
	}
	account.Counts = tcp(int64(account.Sum().Packets) + packets)
	w.must(w.live.Status().Update(w.t.Context(), s))
}

func TestANodeThatIsBackBeforeItIsRetiredIsRetiredAndCountedOn(t *testing.T) {
	w := newLeaving(t)
	n1 := node("n1", "")
	w.must(w.live.Delete(t.Context(), &n1))
	w.see(memapi.Kinds()...)
	w.client.Fault = func(point string) error {
		if point == "before delete" {
			return errFault // the controller ends here
		}
		return nil
	}
	if err := w.reconcile(w.nodes, "n1"); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	w.client.Fault = nil
	n1 = node("n1", "")
	w.must(w.live.Create(t.Context(), &n1))
	for range 2 { // the old node state goes, a new one is made
		w.see(memapi.Kinds()...)
		w.must(w.reconcile(w.nodes, "n1"))
	}
	w.add(2)
	w.see(memapi.Kinds()...)
	w.must(w.reconcile(w.counters, "a"))
	w.expectTotal(9)
}

func TestANodeStateThatTheCacheStillShowsIsNotCountedTwice(t *testing.T) {
	w := newLeaving(t)
	n1 := node("n1", "")
	w.must(w.live.Delete(t.Context(), &n1))
	w.see(memapi.Nodes)
	w.must(w.reconcile(w.nodes, "n1"))
	w.see(memapi.Counters)
	for range 2 {
		w.must(w.reconcile(w.counters, "a"))
		w.see(memapi.Counters)
		w.expectTotal(7)
		w.must(w.reconcile(w.nodes, "n1")) // asked for by something else
		w.see(memapi.Counters)
	}
	w.see(memapi.Kinds()...)
	w.must(w.reconcile(w.counters, "a"))
	w.expectTotal(7)
}

// Where one controller follows another its caches may be behind what the other did.
func TestAControllerThatFollowsAnotherNeitherSettlesTooEarlyNorRetiresAgain(t *testing.T) {
	w := newLeaving(t)
	n1 := node("n1", "")
	w.must(w.live.Delete(t.Context(), &n1))
	other := &leaving{
		t: t, live: w.live, nodes: &NodeStateReconciler{Client: w.live, Live: w.live, Clock: w.counters.Clock},
		counters: &XDPCounterReconciler{Client: w.live, Live: w.live, Clock: w.counters.Clock, Events: &recorder{}},
	}
	w.live.Fault = func(point string) error {
		if point == "before delete" {
			return errFault
		}
		return nil
	}
	if err := w.reconcile(other.nodes, "n1"); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	w.live.Fault = nil
	w.see(memapi.Kinds()...)

	behind := &memapi.Client{Server: w.live.Server, Cache: w.live.Server.NewCache()}
	behind.Cache.Forget(memapi.NodeStates, "n1") // it was not told of it yet
	w.must(w.reconcile(&XDPCounterReconciler{Client: behind, Live: w.live, Clock: w.counters.Clock, Events: &recorder{}}, "a"))
	w.must(w.reconcile(other.counters, "a"))
	w.expectTotal(7)

	w.must(w.reconcile(other.nodes, "n1"))
	w.must(w.reconcile(other.counters, "a")) // it is settled
	w.see(memapi.Counters)
	w.must(w.reconcile(w.nodes, "n1")) // whose cache still shows the node state
	w.must(w.reconcile(other.counters, "a"))
	w.expectTotal(7)
}

func TestANodeStateDeletedByHandKeepsItsShareOnce(t *testing.T) {
	w := newLeaving(t)
	s := &v1alpha1.XDPNodeState{}
	w.must(w.live.Get(t.Context(), types.NamespacedName{Name: "n1"}, s))
	w.must(w.live.Delete(t.Context(), s))
	deleted := func(unknown bool) {
		q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
		defer q.ShutDown()
		w.nodes.onDeleted().Delete(t.Context(), event.DeleteEvent{Object: s, DeleteStateUnknown: unknown}, q)
		if q.Len() == 0 != unknown {
			t.Errorf("with the end unknown %v, %d requests", unknown, q.Len())
		}
	}
	deleted(true)
	deleted(false)
	for range 2 { // the answer to the first copy is lost
		w.see(memapi.Kinds()...)
		lose := errFault
		w.client.Fault = func(point string) error {
			if point == "after patch status" {
				defer func() { lose = nil }()
				return lose
			}
			return nil
		}
		_ = w.reconcile(w.nodes, "n1")
		w.client.Fault = nil
		w.see(memapi.Kinds()...)
		w.must(w.reconcile(w.counters, "a"))
		w.expectTotal(7)
	}
	w.must(w.reconcile(w.nodes, "n1"))
	w.add(2)
	w.see(memapi.Kinds()...)
	w.must(w.reconcile(w.counters, "a"))
	w.expectTotal(9)

	// Its node leaves: the new share is added, the old one settled.
	w.must(w.live.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}))
	w.see(memapi.Kinds()...)
	w.must(w.reconcile(w.nodes, "n1"))
	w.see(memapi.Kinds()...)
	w.must(w.reconcile(w.counters, "a"))
	w.expectTotal(9)
	x := &v1alpha1.XDPCounter{}
	w.must(w.live.Get(t.Context(), client.ObjectKey{Name: "a"}, x))
	if len(x.Status.Retired.Departing) != 0 {
		t.Errorf("not settled: %+v", x.Status.Retired)
	}
}
