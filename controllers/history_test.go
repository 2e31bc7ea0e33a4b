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

// Runs random sequences of events in a cluster. The caches of the controllers are out of date, their calls fail before or
// after they take effect, and they are killed between any two calls. In every written version of an XDPCounter the classes
// add up to the total and none has decreased. At the end the totals are what the agents have reported.
//
// Documented losses (deleted_states.go, docs/architecture.md) are subtracted: a node state that is deleted or edited by a
// user while no controller watches it. The total then does not increase for a while, but does not decrease.
func TestTotalsInRandomHistories(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for history := range 250 {
		e := newHistoryEnv(t, rand.New(rand.NewPCG(seed, uint64(history))), fmt.Sprintf("history %d of seed %d", history, seed))
		for range 120 {
			e.step()
		}
		e.end()
	}
}

type historyEnv struct {
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
	calls    int // if positive: calls of the controller until the fault
	fault    error

	want    map[types.UID]traffic.Totals        // by counter: what agents have reported
	lost    map[types.UID]traffic.Totals        // by counter: the documented loss
	highest audit.Highest                       // by counter: the highest status
	deleted map[types.UID]v1alpha1.XDPNodeState // node states deleted by a user while this controller runs
	edited  map[types.UID]bool                  // node states edited by a user
}

type crash struct{}

var errFault = errors.New("the call failed")

func newHistoryEnv(t *testing.T, random *rand.Rand, name string) *historyEnv {
	e := &historyEnv{
		t: t, name: name, random: random, clock: testclock.NewFakeClock(now),
		want: map[types.UID]traffic.Totals{}, lost: map[types.UID]traffic.Totals{}, highest: audit.Highest{},
		deleted: map[types.UID]v1alpha1.XDPNodeState{}, edited: map[types.UID]bool{},
	}
	e.server = memapi.New(e.clock.Now)
	e.server.Written = e.check
	e.live = &memapi.Client{Server: e.server}
	e.startController()
	return e
}

func (e *historyEnv) fatalf(format string, args ...any) {
	e.t.Helper()
	e.t.Fatalf("%s: %s\nafter\n%s", e.name, fmt.Sprintf(format, args...), strings.Join(e.log, "\n"))
}

func (e *historyEnv) logf(format string, args ...any) {
	e.log = append(e.log, fmt.Sprintf(format, args...))
}

// check is called with every version of every object.
func (e *historyEnv) check(change memapi.Change) {
	x, ok := change.New.(*v1alpha1.XDPCounter)
	if !ok {
		return
	}
	if err := e.highest.CheckCounter(x); err != nil {
		e.fatalf("%v", err)
	}
	totals := v1alpha1.TotalsOfProtocols(x.Status.Protocols)
	if want := e.want[x.UID]; totals.Max(want) != want {
		e.fatalf("counter %s has %v, more than the reported %v", x.UID, totals.Sum(), want.Sum())
	}
}

// startController replaces the controller. The new one has only what the server has.
func (e *historyEnv) startController() {
	for _, state := range e.deleted {
		e.lose(&state)
	}
	clear(e.deleted)
	e.cache, e.calls = e.server.NewCache(), 0
	client := &memapi.Client{Server: e.server, Cache: e.cache, Fault: e.faulty}
	live := &memapi.Client{Server: e.server, Fault: e.faulty}
	e.nodes = &NodeStateReconciler{Client: client, Live: live, Clock: e.clock}
	e.counters = &XDPCounterReconciler{Client: client, Live: live, Clock: e.clock, Events: &events.FakeRecorder{}, Rescuing: e.nodes.Rescuing}
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

// lose records the share of a deleted node state as lost for counters without a copy of it.
func (e *historyEnv) lose(state *v1alpha1.XDPNodeState) {
	for _, x := range e.allCounters() {
		account := state.Account(x.UID)
		_, contained := retiredTotals(x.Status.Retired)
		if account != nil && !contained[state.UID] {
			e.lost[x.UID] = e.lost[x.UID].Plus(v1alpha1.TotalsOf(account.Counts))
			e.logf("  documented loss: %d packets of %s on %s", account.Sum().Packets, x.UID, state.UID)
		}
	}
}

// faulty is called before and after each call of the controller. Other clients act in between.
func (e *historyEnv) faulty(point string) error {
	if e.random.IntN(12) == 0 {
		e.logf("  %s:", point)
		e.outside()
	}
	if e.calls--; e.calls != 0 {
		return nil
	}
	if e.fault == nil {
		e.logf("  the controller is killed %s", point)
		panic(crash{})
	}
	e.logf("  the call fails %s", point)
	return e.fault
}

func (e *historyEnv) step() {
	e.clock.Step(time.Second)
	switch e.random.IntN(8) {
	case 0, 1, 2:
		e.outside()
	case 3, 4:
		for range 1 + e.random.IntN(4) {
			e.deliver(memapi.Kinds()[e.random.IntN(3)])
		}
	case 5, 6:
		e.calls = 0
		if e.random.IntN(3) == 0 {
			e.calls, e.fault = 1+e.random.IntN(8), nil
			if e.random.IntN(2) == 0 {
				e.fault = errFault
			}
		}
		e.reconcileOne()
	case 7:
		if e.random.IntN(4) == 0 {
			e.logf("the controller restarts")
			e.startController()
		}
	}
}

// outside makes one change of a user, a node or an agent.
func (e *historyEnv) outside() {
	ctx := context.Background()
	name := fmt.Sprintf("n%d", 1+e.random.IntN(3))
	pool := []string{"edge", "core"}[e.random.IntN(2)]
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pool": pool}}}
	state := &v1alpha1.XDPNodeState{}
	hasState := e.live.Get(ctx, types.NamespacedName{Name: name}, state) == nil
	switch event := e.random.IntN(16); event {
	case 0, 1:
		if e.live.Create(ctx, node) == nil {
			e.logf("node %s joins in pool %s", name, pool)
		}
	case 2:
		if e.live.Delete(ctx, node) == nil {
			e.logf("node %s leaves", name)
		}
	case 3:
		if e.live.Get(ctx, types.NamespacedName{Name: name}, node) == nil {
			node.Labels = map[string]string{"pool": pool}
			e.must(e.live.Update(ctx, node))
			e.logf("node %s is in pool %s", name, pool)
		}
	case 4, 5, 6:
		e.user(event, pool)
	case 7:
		if hasState && !retiring(state) && e.random.IntN(3) == 0 {
			e.logf("a user deletes node state %s (%s)", name, state.UID)
			e.deleted[state.UID] = *state
			e.must(e.live.Delete(ctx, state))
		}
	case 8:
		if hasState && e.random.IntN(6) == 0 {
			e.logf("a user edits the spec of node state %s", name)
			state.Spec.Counters, e.edited[state.UID] = nil, true
			e.must(e.live.Update(ctx, state))
		}
	case 9:
		if hasState && e.random.IntN(6) == 0 {
			e.logf("a user empties the status of node state %s", name)
			e.edited[state.UID] = true
			e.loseAccounts(state)
			state.Status = v1alpha1.XDPNodeStateStatus{}
			e.must(e.live.Status().Update(ctx, state))
		}
	default:
		if hasState {
			e.report(state)
		}
	}
}

// user creates, edits and deletes counters.
func (e *historyEnv) user(event int, pool string) {
	ctx := context.Background()
	x := &v1alpha1.XDPCounter{ObjectMeta: metav1.ObjectMeta{Name: []string{"a", "b"}[e.random.IntN(2)]}}
	there := e.live.Get(ctx, types.NamespacedName{Name: x.Name}, x) == nil
	x.Spec.Suspend = e.random.IntN(4) == 0
	x.Spec.NodeSelector = nil
	if e.random.IntN(2) == 0 {
		x.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"pool": pool}}
	}
	switch {
	case !there:
		e.must(e.live.Create(ctx, x))
		e.logf("counter %s is created for pool %s", x.UID, pool)
	case event == 6 && e.random.IntN(3) == 0:
		e.logf("counter %s is deleted", x.UID)
		e.must(e.live.Delete(ctx, x))
	case event != 6:
		e.logf("counter %s is edited: suspend %v, selector %v", x.UID, x.Spec.Suspend, x.Spec.NodeSelector)
		e.must(e.live.Update(ctx, x))
	}
}

// report writes the report of an agent. It applies the spec and adds packets to the accounts of active counters.
func (e *historyEnv) report(state *v1alpha1.XDPNodeState) {
	before := state.DeepCopy()
	reported := metav1.NewMicroTime(e.clock.Now())
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
			n := uint64(e.random.IntN(9))
			growth[traffic.IP(traffic.IPv4, uint8(1+e.random.IntN(3)))] = traffic.Counts{Packets: n, Bytes: 60 * n}
			status.Interfaces = append(status.Interfaces, v1alpha1.NodeInterface{Name: "eth0", Map: 1, State: v1alpha1.InterfaceAttached, Counters: []types.UID{c.UID}})
		}
		grown[c.UID] = growth
		totals = totals.Plus(growth)
		status.Accounts = append(status.Accounts, v1alpha1.CounterAccount{UID: c.UID, Generation: c.Generation, Counts: v1alpha1.CountsOf(totals)})
	}
	state.Status = status
	for uid, growth := range grown { // before the write, which triggers the check
		e.want[uid] = e.want[uid].Plus(growth)
	}
	e.must(e.live.Status().Update(context.Background(), state))
	if e.edited[state.UID] {
		before.Status.Accounts = slices.DeleteFunc(before.Status.Accounts, func(a v1alpha1.CounterAccount) bool { return state.Account(a.UID) != nil })
		e.loseAccounts(before)
	}
	e.logf("agent of %s (%s) reports %v", state.Name, state.UID, packetsOf(state))
}

// loseAccounts records the accounts of a node state as lost because a user edited it.
func (e *historyEnv) loseAccounts(state *v1alpha1.XDPNodeState) {
	for _, account := range state.Status.Accounts {
		e.lost[account.UID] = e.lost[account.UID].Plus(v1alpha1.TotalsOf(account.Counts))
		e.logf("  documented loss: %d packets of %s on %s", account.Sum().Packets, account.UID, state.UID)
	}
}

func packetsOf(state *v1alpha1.XDPNodeState) map[types.UID]int64 {
	packets := map[types.UID]int64{}
	for _, a := range state.Status.Accounts {
		packets[a.UID] = int64(a.Sum().Packets)
	}
	return packets
}

// deliver applies one change to the controller's cache and adds the requests that follow.
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

// reconcileOne processes one request, if there is any.
func (e *historyEnv) reconcileOne() bool {
	for _, r := range []reconcile.Reconciler{e.nodes, e.counters} {
		queue := slices.Sorted(maps.Keys(e.queues[r]))
		if len(queue) == 0 || r == e.nodes && len(e.queues[e.counters]) > 0 && e.random.IntN(2) == 0 {
			continue
		}
		e.reconcile(r, queue[e.random.IntN(len(queue))])
		return true
	}
	return false
}

func (e *historyEnv) reconcile(r reconcile.Reconciler, name string) {
	e.logf("reconcile %T %s", r, name)
	defer func() {
		switch cause := recover().(type) {
		case nil:
		case crash:
			e.startController()
		default:
			panic(cause)
		}
	}()
	delete(e.queues[r], name)
	result, err := r.Reconcile(context.Background(), request(name))
	if err != nil && !errors.Is(err, errFault) {
		e.fatalf("reconcile %s: %v", name, err)
	}
	if err != nil || result.RequeueAfter == conflictDelay {
		e.queues[r][name] = true
	}
	for uid := range e.deleted { // a share that is copied cannot be lost any more
		if r == e.nodes && e.deleted[uid].Name == name && e.rescued(uid) {
			delete(e.deleted, uid)
		}
	}
}

// rescued reports whether every counter has its copy of the node state.
func (e *historyEnv) rescued(uid types.UID) bool {
	state := e.deleted[uid]
	for _, x := range e.allCounters() {
		if _, contained := retiredTotals(x.Status.Retired); state.Account(x.UID) != nil && !contained[uid] {
			return false
		}
	}
	return true
}

// end processes everything that is left and compares the totals.
func (e *historyEnv) end() {
	e.logf("the end: without faults, until nothing changes")
	e.random = rand.New(rand.NewPCG(0, 0))
	e.calls = 0
	for round := range 30 {
		for _, kind := range memapi.Kinds() {
			for e.deliver(kind) {
			}
		}
		e.wake()
		busy := e.server.Written
		quiet := true
		e.server.Written = func(c memapi.Change) { quiet = false; busy(c) }
		e.quietly(func() {
			for range 100 {
				if !e.reconcileOne() {
					break
				}
			}
			if round < 20 {
				for _, name := range namesOf(e, &v1alpha1.XDPNodeStateList{}) {
					state := &v1alpha1.XDPNodeState{}
					if e.live.Get(context.Background(), types.NamespacedName{Name: name}, state) == nil {
						e.report(state)
					}
				}
			}
		})
		e.server.Written = busy
		if quiet && round >= 20 {
			e.compare()
			return
		}
	}
	e.fatalf("objects still change after all rounds")
}

// quietly runs do without faults and without other clients.
func (e *historyEnv) quietly(do func()) {
	client, live := e.nodes.Client.(*memapi.Client), e.nodes.Live.(*memapi.Client)
	client.Fault, live.Fault = nil, nil
	do()
	client.Fault, live.Fault = e.faulty, e.faulty
}

func (e *historyEnv) compare() {
	there := map[string]bool{}
	for _, n := range namesOf(e, &corev1.NodeList{}) {
		there[n] = true
	}
	for _, n := range namesOf(e, &v1alpha1.XDPNodeStateList{}) {
		if !there[n] {
			e.fatalf("node %s is deleted, but its node state is not", n)
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
			e.fatalf("counter %s has %v, want %v after a documented loss of %v; retired %+v", x.UID, got.Sum(), want.Sum(), lost.Sum(), x.Status.Retired)
		}
		if r := x.Status.Retired; r != nil {
			for _, d := range r.Departing {
				if !there[d.Name] {
					e.fatalf("counter %s: the copy of the departed node %s is not merged", x.UID, d.Name)
				}
			}
		}
	}
}

func (e *historyEnv) must(err error) {
	e.t.Helper()
	if err != nil {
		e.fatalf("%v", err)
	}
}

func (e *historyEnv) allCounters() []v1alpha1.XDPCounter {
	list := &v1alpha1.XDPCounterList{}
	e.must(e.live.List(context.Background(), list))
	return list.Items
}

// namesOf returns the names of all objects of a kind.
func namesOf[L any](e *historyEnv, list L) (names []string) {
	switch l := any(list).(type) {
	case *corev1.NodeList:
		e.must(e.live.List(context.Background(), l))
		for _, o := range l.Items {
			names = append(names, o.Name)
		}
	case *v1alpha1.XDPNodeStateList:
		e.must(e.live.List(context.Background(), l))
		for _, o := range l.Items {
			names = append(names, o.Name)
		}
	case *v1alpha1.XDPCounterList:
		e.must(e.live.List(context.Background(), l))
		for _, o := range l.Items {
			names = append(names, o.Name)
		}
	}
	return names
}
