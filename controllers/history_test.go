package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/audit"
	"github.com/xdp-operator/xdp-operator/test/util/memapi"
)

// Random histories of a cluster, with controllers that see the past, whose calls fail before or after they took effect
// and who are killed between any two of them. In every version of an XDPCounter that is written the classes sum up to
// the total and none has fallen, and in the end the totals are what the agents ever reported.
//
// What is lost as stated (lost.go, docs/architecture.md) the model subtracts: a node state deleted or edited by hand
// while no controller sees it. The total then stalls and never falls.
func TestRandomHistoriesOfAClusterKeepEveryTotal(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for history := range 250 {
		w := newWorld(t, rand.New(rand.NewPCG(seed, uint64(history))), fmt.Sprintf("history %d of seed %d", history, seed))
		for range 120 {
			w.step()
		}
		w.end()
	}
}

type world struct {
	t      *testing.T
	name   string
	random *rand.Rand
	clock  *testclock.FakeClock
	server *memapi.Server
	live   *memapi.Client // of users and agents
	log    []string

	cache    *memapi.Cache
	nodes    *NodeStateReconciler
	counters *XDPCounterReconciler
	queues   map[reconcile.Reconciler]map[string]bool
	calls    int // of the controller until the fault, if positive
	fault    error

	want    map[types.UID]traffic.Totals        // by counter, what agents reported
	lost    map[types.UID]traffic.Totals        // of it, by counter, as stated
	highest audit.Highest                       // what the status of each counter told
	deleted map[types.UID]v1alpha1.XDPNodeState // by hand, and no controller ended since
	edited  map[types.UID]bool                  // node states by hand
}

type crash struct{}

var errFault = errors.New("the call failed")

func newWorld(t *testing.T, random *rand.Rand, name string) *world {
	w := &world{
		t: t, name: name, random: random, clock: testclock.NewFakeClock(now),
		want: map[types.UID]traffic.Totals{}, lost: map[types.UID]traffic.Totals{}, highest: audit.Highest{},
		deleted: map[types.UID]v1alpha1.XDPNodeState{}, edited: map[types.UID]bool{},
	}
	w.server = memapi.New(w.clock.Now)
	w.server.Written = w.check
	w.live = &memapi.Client{Server: w.server}
	w.startController()
	return w
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s: %s\nafter\n%s", w.name, fmt.Sprintf(format, args...), strings.Join(w.log, "\n"))
}

func (w *world) logf(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

// check sees every version of every object.
func (w *world) check(change memapi.Change) {
	x, ok := change.New.(*v1alpha1.XDPCounter)
	if !ok {
		return
	}
	if err := w.highest.CheckCounter(x); err != nil {
		w.fatalf("%v", err)
	}
	totals := v1alpha1.TotalsOfProtocols(x.Status.Protocols)
	if want := w.want[x.UID]; totals.Max(want) != want {
		w.fatalf("counter %s says %v, more than the %v ever reported", x.UID, totals.Sum(), want.Sum())
	}
}

// startController starts a controller with nothing but what the server has. The one before is no more.
func (w *world) startController() {
	for _, state := range w.deleted {
		w.lose(&state)
	}
	clear(w.deleted)
	w.cache, w.calls = w.server.NewCache(), 0
	client := &memapi.Client{Server: w.server, Cache: w.cache, Fault: w.faulty}
	live := &memapi.Client{Server: w.server, Fault: w.faulty}
	w.nodes = &NodeStateReconciler{Client: client, Live: live, Clock: w.clock}
	w.counters = &XDPCounterReconciler{Client: client, Live: live, Clock: w.clock, Events: &events.FakeRecorder{}, Rescuing: w.nodes.Rescuing}
	w.queues = map[reconcile.Reconciler]map[string]bool{w.nodes: {}, w.counters: {}}
	w.wake()
}

// wake asks for everything, as the first list does and from time to time the silence limit.
func (w *world) wake() {
	for _, n := range namesOf(w, &corev1.NodeList{}) {
		w.queues[w.nodes][n] = true
	}
	for _, n := range namesOf(w, &v1alpha1.XDPNodeStateList{}) {
		w.queues[w.nodes][n] = true
	}
	for _, n := range namesOf(w, &v1alpha1.XDPCounterList{}) {
		w.queues[w.counters][n] = true
	}
}

// lose lets a deleted node state's share be lost where no copy of it is saved.
func (w *world) lose(state *v1alpha1.XDPNodeState) {
	for _, x := range w.allCounters() {
		account := state.Account(x.UID)
		_, contained := retiredTotals(x.Status.Retired)
		if account != nil && !contained[state.UID] {
			w.lost[x.UID] = w.lost[x.UID].Plus(v1alpha1.TotalsOf(account.Counts))
			w.logf("  lost as stated: %d of %s on %s", account.Sum().Packets, x.UID, state.UID)
		}
	}
}

// faulty is asked before and after each call of the controller to the server. Others act meanwhile.
func (w *world) faulty(point string) error {
	if w.random.IntN(12) == 0 {
		w.logf("  %s:", point)
		w.outside()
	}
	if w.calls--; w.calls != 0 {
		return nil
	}
	if w.fault == nil {
		w.logf("  the controller is killed %s", point)
		panic(crash{})
	}
	w.logf("  the call fails %s", point)
	return w.fault
}

func (w *world) step() {
	w.clock.Step(time.Second)
	switch w.random.IntN(8) {
	case 0, 1, 2:
		w.outside()
	case 3, 4:
		for range 1 + w.random.IntN(4) {
			w.deliver(memapi.Kinds()[w.random.IntN(3)])
		}
	case 5, 6:
		w.calls = 0
		if w.random.IntN(3) == 0 {
			w.calls, w.fault = 1+w.random.IntN(8), nil
			if w.random.IntN(2) == 0 {
				w.fault = errFault
			}
		}
		w.reconcileOne()
	case 7:
		if w.random.IntN(4) == 0 {
			w.logf("the controller starts anew")
			w.startController()
		}
	}
}

// outside is what others than the controller do.
func (w *world) outside() {
	ctx := context.Background()
	name := fmt.Sprintf("n%d", 1+w.random.IntN(3))
	pool := []string{"edge", "core"}[w.random.IntN(2)]
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pool": pool}}}
	state := &v1alpha1.XDPNodeState{}
	hasState := w.live.Get(ctx, types.NamespacedName{Name: name}, state) == nil
	switch event := w.random.IntN(16); event {
	case 0, 1:
		if w.live.Create(ctx, node) == nil {
			w.logf("node %s joins in pool %s", name, pool)
		}
	case 2:
		if w.live.Delete(ctx, node) == nil {
			w.logf("node %s leaves", name)
		}
	case 3:
		if w.live.Get(ctx, types.NamespacedName{Name: name}, node) == nil {
			node.Labels = map[string]string{"pool": pool}
			w.must(w.live.Update(ctx, node))
			w.logf("node %s is in pool %s", name, pool)
		}
	case 4, 5, 6:
		w.user(event, pool)
	case 7:
		if hasState && !retiring(state) && w.random.IntN(3) == 0 {
			w.logf("node state %s (%s) is deleted by hand", name, state.UID)
			w.deleted[state.UID] = *state
			w.must(w.live.Delete(ctx, state))
		}
	case 8:
		if hasState && w.random.IntN(6) == 0 {
			w.logf("the spec of node state %s is edited by hand", name)
			state.Spec.Counters, w.edited[state.UID] = nil, true
			w.must(w.live.Update(ctx, state))
		}
	case 9:
		if hasState && w.random.IntN(6) == 0 {
			w.logf("the status of node state %s is emptied by hand", name)
			w.edited[state.UID] = true
			w.loseAccounts(state)
			state.Status = v1alpha1.XDPNodeStateStatus{}
			w.must(w.live.Status().Update(ctx, state))
		}
	default:
		if hasState {
			w.report(state)
		}
	}
}

// user makes, edits and deletes counters.
func (w *world) user(event int, pool string) {
	ctx := context.Background()
	x := &v1alpha1.XDPCounter{ObjectMeta: metav1.ObjectMeta{Name: []string{"a", "b"}[w.random.IntN(2)]}}
	there := w.live.Get(ctx, types.NamespacedName{Name: x.Name}, x) == nil
	x.Spec.Suspend = w.random.IntN(4) == 0
	x.Spec.NodeSelector = nil
	if w.random.IntN(2) == 0 {
		x.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"pool": pool}}
	}
	switch {
	case !there:
		w.must(w.live.Create(ctx, x))
		w.logf("counter %s is made for pool %s", x.UID, pool)
	case event == 6 && w.random.IntN(3) == 0:
		w.logf("counter %s is deleted", x.UID)
		w.must(w.live.Delete(ctx, x))
	case event != 6:
		w.logf("counter %s is edited: suspend %v, selector %v", x.UID, x.Spec.Suspend, x.Spec.NodeSelector)
		w.must(w.live.Update(ctx, x))
	}
}

// report is an agent: it follows its spec and adds some packets to the accounts of active counters.
func (w *world) report(state *v1alpha1.XDPNodeState) {
	before := state.DeepCopy()
	reported := metav1.NewMicroTime(w.clock.Now())
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
			n := uint64(w.random.IntN(9))
			growth[traffic.IP(traffic.IPv4, uint8(1+w.random.IntN(3)))] = traffic.Counts{Packets: n, Bytes: 60 * n}
			status.Interfaces = append(status.Interfaces, v1alpha1.NodeInterface{Name: "eth0", Map: 1, State: v1alpha1.InterfaceAttached, Counters: []types.UID{c.UID}})
		}
		grown[c.UID] = growth
		totals = totals.Plus(growth)
		status.Accounts = append(status.Accounts, v1alpha1.CounterAccount{UID: c.UID, Generation: c.Generation, Counts: v1alpha1.CountsOf(totals)})
	}
	state.Status = status
	for uid, growth := range grown { // before the write, which is checked against it
		w.want[uid] = w.want[uid].Plus(growth)
	}
	w.must(w.live.Status().Update(context.Background(), state))
	if w.edited[state.UID] {
		before.Status.Accounts = slices.DeleteFunc(before.Status.Accounts, func(a v1alpha1.CounterAccount) bool { return state.Account(a.UID) != nil })
		w.loseAccounts(before)
	}
	w.logf("agent of %s (%s) reports %v", state.Name, state.UID, packetsOf(state))
}

// loseAccounts lets the accounts of a node state be lost, as stated, because of a hand that edited it.
func (w *world) loseAccounts(state *v1alpha1.XDPNodeState) {
	for _, account := range state.Status.Accounts {
		w.lost[account.UID] = w.lost[account.UID].Plus(v1alpha1.TotalsOf(account.Counts))
		w.logf("  lost as stated: %d of %s on %s", account.Sum().Packets, account.UID, state.UID)
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
func (w *world) deliver(kind memapi.Kind) bool {
	change, ok := w.cache.Next(kind)
	if !ok {
		return false
	}
	object := change.New
	if object == nil {
		object = change.Old
	}
	switch kind {
	case memapi.Nodes:
		w.queues[w.nodes][object.GetName()] = true
		for _, n := range namesOf(w, &v1alpha1.XDPCounterList{}) {
			w.queues[w.counters][n] = true
		}
	case memapi.Counters:
		if change.Old != nil && change.New != nil && change.Old.GetGeneration() == change.New.GetGeneration() {
			return true
		}
		w.queues[w.counters][object.GetName()] = true
		for _, r := range w.nodes.allNodes(context.Background(), nil) {
			w.queues[w.nodes][r.Name] = true
		}
	case memapi.NodeStates:
		state := object.(*v1alpha1.XDPNodeState)
		w.queues[w.nodes][state.Name] = true
		for _, c := range state.Spec.Counters {
			w.queues[w.counters][c.Name] = true
		}
		if change.New == nil {
			q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
			w.nodes.onDeleted().Delete(context.Background(), event.DeleteEvent{Object: state}, q)
			q.ShutDown()
		}
	}
	return true
}

// reconcileOne lets the controller do one thing that is asked for, if any.
func (w *world) reconcileOne() bool {
	for _, r := range []reconcile.Reconciler{w.nodes, w.counters} {
		queue := slices.Sorted(maps.Keys(w.queues[r]))
		if len(queue) == 0 || r == w.nodes && len(w.queues[w.counters]) > 0 && w.random.IntN(2) == 0 {
			continue
		}
		w.reconcile(r, queue[w.random.IntN(len(queue))])
		return true
	}
	return false
}

func (w *world) reconcile(r reconcile.Reconciler, name string) {
	w.logf("reconcile %T %s", r, name)
	defer func() {
		switch e := recover().(type) {
		case nil:
		case crash:
			w.startController()
		default:
			panic(e)
		}
	}()
	delete(w.queues[r], name)
	result, err := r.Reconcile(context.Background(), request(name))
	if err != nil && !errors.Is(err, errFault) {
		w.fatalf("reconcile %s: %v", name, err)
	}
	if err != nil || result.RequeueAfter == conflictDelay {
		w.queues[r][name] = true
	}
	for uid := range w.deleted { // what is rescued can be lost no more
		if r == w.nodes && w.deleted[uid].Name == name && w.rescued(uid) {
			delete(w.deleted, uid)
		}
	}
}

// rescued reports whether each counter that there is has its copy.
func (w *world) rescued(uid types.UID) bool {
	state := w.deleted[uid]
	for _, x := range w.allCounters() {
		if _, contained := retiredTotals(x.Status.Retired); state.Account(x.UID) != nil && !contained[uid] {
			return false
		}
	}
	return true
}

// end lets everything come to rest and compares.
func (w *world) end() {
	w.logf("the end: everything comes to rest")
	w.random = rand.New(rand.NewPCG(0, 0))
	w.calls = 0
	for round := range 30 {
		for _, kind := range memapi.Kinds() {
			for w.deliver(kind) {
			}
		}
		w.wake()
		busy := w.server.Written
		quiet := true
		w.server.Written = func(c memapi.Change) { quiet = false; busy(c) }
		w.quietly(func() {
			for range 100 {
				if !w.reconcileOne() {
					break
				}
			}
			if round < 20 {
				for _, name := range namesOf(w, &v1alpha1.XDPNodeStateList{}) {
					state := &v1alpha1.XDPNodeState{}
					if w.live.Get(context.Background(), types.NamespacedName{Name: name}, state) == nil {
						w.report(state)
					}
				}
			}
		})
		w.server.Written = busy
		if quiet && round >= 20 {
			w.compare()
			return
		}
	}
	w.fatalf("no rest")
}

// quietly lets nothing come between.
func (w *world) quietly(do func()) {
	client, live := w.nodes.Client.(*memapi.Client), w.nodes.Live.(*memapi.Client)
	client.Fault, live.Fault = nil, nil
	do()
	client.Fault, live.Fault = w.faulty, w.faulty
}

func (w *world) compare() {
	there := map[string]bool{}
	for _, n := range namesOf(w, &corev1.NodeList{}) {
		there[n] = true
	}
	for _, n := range namesOf(w, &v1alpha1.XDPNodeStateList{}) {
		if !there[n] {
			w.fatalf("node %s is gone, its node state is not", n)
		}
	}
	for _, x := range w.allCounters() {
		got := v1alpha1.TotalsOfProtocols(x.Status.Protocols)
		want := w.want[x.UID].Since(w.lost[x.UID]).Max(w.highest[x.UID])
		if w.lost[x.UID] == (traffic.Totals{}) {
			want = w.want[x.UID]
		}
		if got != want {
			lost := w.lost[x.UID]
			w.fatalf("counter %s says %v, want %v, with %v lost as stated; retired %+v", x.UID, got.Sum(), want.Sum(), lost.Sum(), x.Status.Retired)
		}
		if r := x.Status.Retired; r != nil {
			for _, d := range r.Departing {
				if !there[d.Name] {
					w.fatalf("counter %s: the copy of %s, which left, is not settled", x.UID, d.Name)
				}
			}
		}
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.fatalf("%v", err)
	}
}

func (w *world) allCounters() []v1alpha1.XDPCounter {
	list := &v1alpha1.XDPCounterList{}
	w.must(w.live.List(context.Background(), list))
	return list.Items
}

// namesOf returns the names of all objects of a kind.
func namesOf[L any](w *world, list L) (names []string) {
	switch l := any(list).(type) {
	case *corev1.NodeList:
		w.must(w.live.List(context.Background(), l))
		for _, o := range l.Items {
			names = append(names, o.Name)
		}
	case *v1alpha1.XDPNodeStateList:
		w.must(w.live.List(context.Background(), l))
		for _, o := range l.Items {
			names = append(names, o.Name)
		}
	case *v1alpha1.XDPCounterList:
		w.must(w.live.List(context.Background(), l))
		for _, o := range l.Items {
			names = append(names, o.Name)
		}
	}
	return names
}
