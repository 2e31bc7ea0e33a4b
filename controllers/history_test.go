// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/audit"
	"github.com/xdp-operator/xdp-operator/test/util/history"
	"github.com/xdp-operator/xdp-operator/test/util/memapi"
)

// Runs random sequences of events in a cluster. The caches of the controllers are out of date, their calls fail before or
// after they take effect, and they are killed between any two calls. In every written version of an XDPCounter the classes
// add up to the total and none has decreased. At the end the totals are what the agents have reported.
//
// Documented losses (deleted_states.go, docs/architecture.md) are subtracted: a node state that is deleted or edited by a
// user while no controller watches it. The total then does not increase for a while, but does not decrease.
//
// The clocks of nodes and controllers are wrong by hours. No agent is late that has reported within the last minute, and each
// agent that stops is late in the end, also for the next controller.
func TestTotalsInRandomHistories(t *testing.T) {
	history.Run(t, 250, 120, func(h *history.History) history.Scenario {
		e := &historyEnv{
			History: h,
			want:    map[types.UID]traffic.Totals{}, lost: map[types.UID]traffic.Totals{}, highest: audit.Highest{},
			deleted: map[types.UID]v1alpha1.XDPNodeState{}, edited: map[types.UID]bool{},
			skews: map[string]time.Duration{}, received: map[string]time.Time{},
		}
		for _, name := range []string{"n1", "n2", "n3"} {
			e.skews[name] = h.Skew()
		}
		h.Server.Written = e.check
		e.startController()
		return e
	})
}

// errFault is the error of a call that fails.
var errFault = history.ErrFault

type historyEnv struct {
	*history.History

	cache    *memapi.Cache
	nodes    *NodeStateReconciler
	counters *XDPCounterReconciler
	queues   map[reconcile.Reconciler]map[string]bool

	want    map[types.UID]traffic.Totals        // by counter, what agents reported
	lost    map[types.UID]traffic.Totals        // by counter: the documented loss
	highest audit.Highest                       // what the status of each counter has shown
	deleted map[types.UID]v1alpha1.XDPNodeState // by hand, and no controller ended since
	edited  map[types.UID]bool                  // node states by hand

	skews    map[string]time.Duration // by node, of its clock
	received map[string]time.Time     // by node: when the running controller received its latest report, unless it has started with it
}

// check is called with every version of every object.
func (e *historyEnv) check(change memapi.Change) {
	x, ok := change.New.(*v1alpha1.XDPCounter)
	if !ok {
		return
	}
	if err := e.highest.CheckCounter(x); err != nil {
		e.Fatalf("%v", err)
	}
	totals := v1alpha1.TotalsOfProtocols(x.Status.Protocols)
	if want := e.want[x.UID]; totals.Max(want) != want {
		e.Fatalf("counter %s has %v, more than the reported %v", x.UID, totals.Sum(), want.Sum())
	}
	e.checkLateness(change.Old, x)
}

// startController replaces the controller. The new one has only what the server has.
func (e *historyEnv) startController() {
	for _, state := range e.deleted {
		e.lose(&state)
	}
	clear(e.deleted)
	e.Arm(0, nil)
	e.cache = e.Server.NewCache()
	client := &memapi.Client{Server: e.Server, Cache: e.cache, Fault: e.faulty}
	live := &memapi.Client{Server: e.Server, Fault: e.faulty}
	clear(e.received)
	clock := history.Skewed{PassiveClock: e.Clock, By: e.Skew()}
	e.nodes = &NodeStateReconciler{Client: client, Live: live, Clock: clock}
	e.counters = &XDPCounterReconciler{Client: client, Live: live, Clock: clock, Events: &events.FakeRecorder{}, Rescuing: e.nodes.Rescuing}
	e.queues = map[reconcile.Reconciler]map[string]bool{e.nodes: {}, e.counters: {}}
	e.wake()
}

// wake requests every object, as the first list does and, from time to time, the deadline of the next report.
func (e *historyEnv) wake() {
	for _, n := range namesOf(e, &corev1.NodeList{}) {
		e.queues[e.nodes][n] = true
	}
	for _, n := range namesOf(e, &v1alpha1.XDPNodeStateList{}) {
		e.queues[e.nodes][n] = true
	}
	for _, n := range namesOf(e, &v1alpha1.XDPCounterList{}) {
		e.queues[e.counters][n] = true
	}
}

// lose lets a deleted node state's share be lost where no copy of it is saved.
func (e *historyEnv) lose(state *v1alpha1.XDPNodeState) {
	for _, x := range e.allCounters() {
		account := state.Account(x.UID)
		_, contained := retiredTotals(x.Status.Retired)
		if account != nil && !contained[state.UID] {
			e.lost[x.UID] = e.lost[x.UID].Plus(v1alpha1.TotalsOf(account.Counts))
			e.Logf("  lost documented: %d packets of %s on %s", account.Sum().Packets, x.UID, state.UID)
		}
	}
}

// faulty is called before and after each call of the controller. Other clients act in between.
func (e *historyEnv) faulty(point string) error {
	if e.Still {
		return nil
	}
	if e.Random.IntN(12) == 0 {
		e.Logf("  %s:", point)
		e.outside()
	}
	return e.Call(point)
}

// Step implements history.Scenario.
func (e *historyEnv) Step() {
	e.Clock.Step(time.Duration(1+e.Random.IntN(30)) * time.Second)
	switch e.Random.IntN(8) {
	case 0, 1, 2:
		e.outside()
	case 3, 4:
		for range 1 + e.Random.IntN(4) {
			e.deliver(history.OneOf(e.History, memapi.Kinds()...))
		}
	case 5, 6:
		e.Arm(0, nil)
		if e.Random.IntN(3) == 0 {
			e.Arm(1+e.Random.IntN(8), history.OneOf(e.History, nil, errFault))
		}
		e.reconcileOne()
	case 7:
		if e.Random.IntN(4) == 0 {
			e.Logf("the controller restarts")
			e.startController()
		}
	}
}

// outside makes one change of a user, a node or an agent.
func (e *historyEnv) outside() {
	ctx := context.Background()
	name := history.OneOf(e.History, "n1", "n2", "n3")
	pool := history.OneOf(e.History, "edge", "core")
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pool": pool}}}
	state := &v1alpha1.XDPNodeState{}
	hasState := e.Exists(name, state)
	switch event := e.Random.IntN(17); event {
	case 0, 1:
		if e.Live.Create(ctx, node) == nil {
			e.Logf("node %s joins in pool %s", name, pool)
		}
	case 2:
		if e.Live.Delete(ctx, node) == nil {
			e.Logf("node %s leaves", name)
		}
	case 3:
		if e.Exists(name, node) {
			node.Labels = map[string]string{"pool": pool}
			e.Must(e.Live.Update(ctx, node))
			e.Logf("node %s is in pool %s", name, pool)
		}
	case 4, 5, 6:
		e.user(event, pool)
	case 16:
		if e.Exists(name, node) {
			e.kubelet(node)
		}
	case 7:
		if hasState && !retiring(state) && e.Random.IntN(3) == 0 {
			e.Logf("node state %s (%s) is deleted by hand", name, state.UID)
			e.deleted[state.UID] = *state
			e.Must(e.Live.Delete(ctx, state))
		}
	case 8:
		if hasState && e.Random.IntN(6) == 0 {
			e.Logf("the spec of node state %s is edited by hand", name)
			state.Spec.Counters, e.edited[state.UID] = nil, true
			e.Must(e.Live.Update(ctx, state))
		}
	case 9:
		if hasState && e.Random.IntN(6) == 0 {
			e.Logf("the status of node state %s is emptied by hand", name)
			e.edited[state.UID] = true
			e.loseAccounts(state)
			state.Status = v1alpha1.XDPNodeStateStatus{}
			e.Must(e.Live.Status().Update(ctx, state))
		}
	default:
		if hasState {
			e.report(state)
		}
	}
}

// user makes, edits and deletes counters.
func (e *historyEnv) user(event int, pool string) {
	ctx := context.Background()
	x := &v1alpha1.XDPCounter{ObjectMeta: metav1.ObjectMeta{Name: history.OneOf(e.History, "a", "b")}}
	there := e.Exists(x.Name, x)
	x.Spec.Suspend = e.Random.IntN(4) == 0
	x.Spec.NodeSelector = nil
	if e.Random.IntN(2) == 0 {
		x.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"pool": pool}}
	}
	switch {
	case !there:
		e.Must(e.Live.Create(ctx, x))
		e.Logf("counter %s is made for pool %s", x.UID, pool)
	case event == 6 && e.Random.IntN(3) == 0:
		e.Logf("counter %s is deleted", x.UID)
		e.Must(e.Live.Delete(ctx, x))
	case event != 6:
		e.Logf("counter %s is edited: suspend %v, selector %v", x.UID, x.Spec.Suspend, x.Spec.NodeSelector)
		e.Must(e.Live.Update(ctx, x))
	}
}

// report is an agent: it follows its spec and adds some packets to the accounts of active counters.
func (e *historyEnv) report(state *v1alpha1.XDPNodeState) {
	before := state.DeepCopy()
	reported := metav1.NewMicroTime(e.Clock.Now().Add(e.skews[state.Name]))
	status := v1alpha1.XDPNodeStateStatus{ObservedGeneration: state.Generation, ReportTime: &reported}
	grown := map[types.UID]traffic.Totals{}
	for _, c := range state.Spec.Counters {
		account := state.Account(c.UID)
		if account == nil && c.Inactive {
			continue
		}
		var totals, growth traffic.Totals
		if account != nil {
			totals = v1alpha1.TotalsOf(account.Counts)
		}
		if !c.Inactive {
			n := uint64(e.Random.IntN(9))
			growth[traffic.IP(traffic.IPv4, uint8(1+e.Random.IntN(3)))] = traffic.Counts{Packets: n, Bytes: 60 * n}
			status.Interfaces = append(status.Interfaces, v1alpha1.NodeInterface{Name: "eth0", Map: 1, State: v1alpha1.InterfaceAttached, Counters: []types.UID{c.UID}})
		}
		grown[c.UID] = growth
		totals = totals.Plus(growth)
		status.Accounts = append(status.Accounts, v1alpha1.CounterAccount{UID: c.UID, Generation: c.Generation, Counts: v1alpha1.CountsAndRatesOf(totals, growth.RatesOver(time.Second))})
	}
	status.NextReportTime = new(metav1.NewTime(v1alpha1.NextReportTime(reported.Time, state.ReportInterval(), status.Accounts)))
	state.Status = status
	for uid, growth := range grown { // before the write, which is checked against it
		e.want[uid] = e.want[uid].Plus(growth)
	}
	e.Must(e.Live.Status().Update(context.Background(), state))
	if e.edited[state.UID] {
		before.Status.Accounts = slices.DeleteFunc(before.Status.Accounts, func(a v1alpha1.CounterAccount) bool { return state.Account(a.UID) != nil })
		e.loseAccounts(before)
	}
	e.Logf("agent of %s (%s) reports %v", state.Name, state.UID, packetsOf(state))
}

// loseAccounts lets the accounts of a node state be lost, as stated, because of a hand that edited it.
func (e *historyEnv) loseAccounts(state *v1alpha1.XDPNodeState) {
	for _, account := range state.Status.Accounts {
		e.lost[account.UID] = e.lost[account.UID].Plus(v1alpha1.TotalsOf(account.Counts))
		e.Logf("  lost documented: %d packets of %s on %s", account.Sum().Packets, account.UID, state.UID)
	}
}

func packetsOf(state *v1alpha1.XDPNodeState) map[types.UID]int64 {
	packets := map[types.UID]int64{}
	for _, a := range state.Status.Accounts {
		packets[a.UID] = int64(a.Sum().Packets)
	}
	return packets
}

// deliver lets the controller's cache take in one change, and asks for what concerns it.
func (e *historyEnv) deliver(kind memapi.Kind) bool {
	change, ok := e.cache.Next(kind)
	if !ok {
		return false
	}
	object := change.New
	if object == nil {
		object = change.Old
	}
	switch kind {
	case memapi.Nodes:
		e.queues[e.nodes][object.GetName()] = true
		for _, n := range namesOf(e, &v1alpha1.XDPCounterList{}) {
			e.queues[e.counters][n] = true
		}
	case memapi.Counters:
		if change.Old != nil && change.New != nil && change.Old.GetGeneration() == change.New.GetGeneration() {
			return true
		}
		e.queues[e.counters][object.GetName()] = true
		for _, r := range e.nodes.allNodes(context.Background(), nil) {
			e.queues[e.nodes][r.Name] = true
		}
	case memapi.NodeStates:
		state := object.(*v1alpha1.XDPNodeState)
		e.receive(change)
		e.queues[e.nodes][state.Name] = true
		for _, c := range state.Spec.Counters {
			e.queues[e.counters][c.Name] = true
		}
		if change.New == nil {
			q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
			e.nodes.onDeleted().Delete(context.Background(), event.DeleteEvent{Object: state}, q)
			q.ShutDown()
		}
	}
	return true
}

// reconcileOne lets the controller do one thing that is asked for, if any.
func (e *historyEnv) reconcileOne() bool {
	for _, r := range []reconcile.Reconciler{e.nodes, e.counters} {
		queue := slices.Sorted(maps.Keys(e.queues[r]))
		if len(queue) == 0 || r == e.nodes && len(e.queues[e.counters]) > 0 && e.Random.IntN(2) == 0 {
			continue
		}
		e.reconcile(r, queue[e.Random.IntN(len(queue))])
		return true
	}
	return false
}

func (e *historyEnv) reconcile(r reconcile.Reconciler, name string) {
	e.Logf("reconcile %T %s", r, name)
	delete(e.queues[r], name)
	e.Run(func() {
		result, err := r.Reconcile(context.Background(), request(name))
		if err != nil && !errors.Is(err, errFault) {
			e.Fatalf("reconcile %s: %v", name, err)
		}
		if err != nil || result.RequeueAfter == conflictDelay {
			e.queues[r][name] = true
		}
		e.keepRescued(r, name)
	}, e.startController)
}

// keepRescued drops those node states of which each counter has a copy by now: what is rescued can be lost no more.
func (e *historyEnv) keepRescued(r reconcile.Reconciler, name string) {
	for uid := range e.deleted {
		if r == e.nodes && e.deleted[uid].Name == name && e.rescued(uid) {
			delete(e.deleted, uid)
		}
	}
}

// rescued reports whether each counter that there is has its copy.
func (e *historyEnv) rescued(uid types.UID) bool {
	state := e.deleted[uid]
	for _, x := range e.allCounters() {
		if _, contained := retiredTotals(x.Status.Retired); state.Account(x.UID) != nil && !contained[uid] {
			return false
		}
	}
	return true
}

// End implements history.Scenario.
func (e *historyEnv) End() {
	for round := range 30 {
		for _, kind := range memapi.Kinds() {
			for e.deliver(kind) {
			}
		}
		e.wake()
		quiet := true
		e.Server.Written = func(c memapi.Change) { quiet = false; e.check(c) }
		for range 100 {
			if !e.reconcileOne() {
				break
			}
		}
		e.Clock.Step(time.Second)
		if round < 20 {
			for _, name := range namesOf(e, &v1alpha1.XDPNodeStateList{}) {
				if state := (&v1alpha1.XDPNodeState{}); e.Exists(name, state) {
					e.report(state)
				}
			}
		}
		if quiet && round >= 20 {
			e.compare()
			e.compareLateness()
			return
		}
	}
	e.Fatalf("no rest")
}

func (e *historyEnv) compare() {
	there := map[string]bool{}
	for _, n := range namesOf(e, &corev1.NodeList{}) {
		there[n] = true
	}
	for _, n := range namesOf(e, &v1alpha1.XDPNodeStateList{}) {
		if !there[n] {
			e.Fatalf("node %s is gone, its node state is not", n)
		}
	}
	for _, x := range e.allCounters() {
		got := v1alpha1.TotalsOfProtocols(x.Status.Protocols)
		want := e.want[x.UID].Since(e.lost[x.UID]).Max(e.highest[x.UID])
		if e.lost[x.UID] == (traffic.Totals{}) {
			want = e.want[x.UID]
		}
		if got != want {
			lost := e.lost[x.UID]
			e.Fatalf("counter %s says %v, want %v, with %v lost as stated; retired %+v", x.UID, got.Sum(), want.Sum(), lost.Sum(), x.Status.Retired)
		}
		if r := x.Status.Retired; r != nil {
			for _, d := range r.Departing {
				if !there[d.Name] {
					e.Fatalf("counter %s: the copy of %s, which left, is not settled", x.UID, d.Name)
				}
			}
		}
	}
}

func (e *historyEnv) allCounters() []v1alpha1.XDPCounter {
	list := &v1alpha1.XDPCounterList{}
	e.Must(e.Live.List(context.Background(), list))
	return list.Items
}

// namesOf returns the names of all objects of a kind.
func namesOf[L any](e *historyEnv, list L) (names []string) {
	switch l := any(list).(type) {
	case *corev1.NodeList:
		e.Must(e.Live.List(context.Background(), l))
		for _, o := range l.Items {
			names = append(names, o.Name)
		}
	case *v1alpha1.XDPNodeStateList:
		e.Must(e.Live.List(context.Background(), l))
		for _, o := range l.Items {
			names = append(names, o.Name)
		}
	case *v1alpha1.XDPCounterList:
		e.Must(e.Live.List(context.Background(), l))
		for _, o := range l.Items {
			names = append(names, o.Name)
		}
	}
	return names
}
