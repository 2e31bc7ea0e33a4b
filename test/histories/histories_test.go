// Package histories runs the real agents and the real controllers together, on an API server in memory and kernels in
// memory, through random histories.
package histories

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	testclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/xdp-operator/xdp-operator/agent"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/controllers"
	"github.com/xdp-operator/xdp-operator/test/util/audit"
	"github.com/xdp-operator/xdp-operator/test/util/memapi"
)

// In the end each XDPCounter says what the maps of all nodes have counted for it, as far as it was ever read and saved,
// and no version of it says less than one before.
func TestRandomHistoriesOfAgentsAndControllersKeepEveryTotal(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for history := range 150 {
		w := newWorld(t, rand.New(rand.NewPCG(seed, uint64(history))), fmt.Sprintf("history %d of seed %d", history, seed))
		for range 150 {
			w.step()
		}
		w.end()
	}
}

type killed struct{}

var errFault = errors.New("the call failed")

type world struct {
	t      *testing.T
	name   string
	random *rand.Rand
	clock  *testclock.FakeClock
	server *memapi.Server
	live   *memapi.Client // of users
	log    []string

	kernels     map[string]*kernel // by node
	acting      *kernel            // whose agent makes a pass
	cache       *memapi.Cache      // of the controller
	reconcilers []reconcile.Reconciler
	calls       int // until who acts is killed or its call fails, if positive
	fault       error
	still       bool
	boots       int

	booked  map[types.UID]traffic.Totals // by counter, what was booked for it in any node state
	highest audit.Highest
	opened  map[types.UID]bool // node states that have a report
}

func newWorld(t *testing.T, random *rand.Rand, name string) *world {
	w := &world{
		t: t, name: name, random: random, clock: testclock.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)),
		kernels: map[string]*kernel{}, booked: map[types.UID]traffic.Totals{}, highest: audit.Highest{},
		opened: map[types.UID]bool{},
	}
	w.server = memapi.New(w.clock.Now)
	w.server.Written = w.written
	w.live = &memapi.Client{Server: w.server}
	w.startController()
	return w
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s: %s\nafter\n%s", w.name, fmt.Sprintf(format, args...), strings.Join(w.log, "\n"))
}

func (w *world) logf(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.fatalf("%v", err)
	}
}

func (w *world) startController() {
	w.cache = w.server.NewCache()
	client, live := &memapi.Client{Server: w.server, Cache: w.cache, Fault: w.between}, &memapi.Client{Server: w.server, Fault: w.between}
	states := &controllers.NodeStateReconciler{Client: client, Live: live, Clock: w.clock}
	w.reconcilers = []reconcile.Reconciler{
		states,
		&controllers.XDPCounterReconciler{Client: client, Live: live, Clock: w.clock, Events: &events.FakeRecorder{}, Rescuing: states.Rescuing},
	}
}

func (w *world) startAgent(k *kernel) {
	k.cache, k.remembered = w.server.NewCache(), ""
	fault := func(point string) error {
		err := w.between(point)
		if err == nil && point == "after update status" { // else the agent does not know that it was saved
			k.remembered = k.reported
		}
		return err
	}
	k.agent = &agent.Agent{
		Client: &memapi.Client{Server: w.server, Cache: k.cache, Fault: fault}, Node: k.node,
		Info: v1alpha1.AgentInfo{BootID: k.boot}, Datapath: k, Links: k, Clock: w.clock,
	}
}

// between is asked at each call of an agent or the controller.
func (w *world) between(point string) error {
	if w.still {
		return nil
	}
	w.traffic()
	if w.calls--; w.calls != 0 {
		return nil
	}
	w.logf("  fault %s: %v", point, w.fault)
	if w.fault == nil {
		panic(killed{})
	}
	return w.fault
}

func (w *world) step() {
	w.clock.Step(time.Duration(w.random.IntN(8)) * time.Second)
	w.traffic()
	w.calls, w.fault = 0, nil
	if w.random.IntN(4) == 0 {
		w.calls = 1 + w.random.IntN(15)
		if w.random.IntN(2) == 0 {
			w.fault = errFault
		}
	}
	name := fmt.Sprintf("n%d", 1+w.random.IntN(3))
	switch w.random.IntN(10) {
	case 0:
		w.node(name)
	case 1:
		w.counter()
	case 2, 3, 4:
		for range 1 + w.random.IntN(4) {
			w.cache.Next(memapi.Kinds()[w.random.IntN(3)])
		}
		w.reconcile(w.random.IntN(2), []string{"n1", "n2", "n3", "a", "b"}[w.random.IntN(5)])
	default:
		if k := w.kernels[name]; k != nil {
			k.cache.Next(memapi.NodeStates)
			w.pass(k)
		}
	}
}

// node lets a node come, go, be labelled or start anew.
func (w *world) node(name string) {
	ctx := context.Background()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pool": []string{"edge", "core"}[w.random.IntN(2)]}}}
	k := w.kernels[name]
	switch event := w.random.IntN(6); {
	case k == nil:
		w.logf("the machine %s comes", name)
		w.kernels[name] = &kernel{w: w, node: name, boot: w.boot()}
		w.startAgent(w.kernels[name])
		fallthrough
	case event < 2:
		if w.live.Create(ctx, node) == nil {
			w.logf("node %s joins", name)
		}
	case event == 2:
		if w.live.Delete(ctx, node) == nil {
			w.logf("node %s leaves", name)
			if w.random.IntN(2) == 0 {
				w.logf("its machine too")
				delete(w.kernels, name)
			}
		}
	case event == 3:
		if w.live.Get(ctx, types.NamespacedName{Name: name}, &corev1.Node{}) == nil {
			old := &corev1.Node{}
			w.must(w.live.Get(ctx, types.NamespacedName{Name: name}, old))
			old.Labels = node.Labels
			w.must(w.live.Update(ctx, old))
			w.logf("node %s is labelled %v", name, node.Labels)
		}
	case event == 4:
		w.logf("%s is started anew", name)
		w.kernels[name] = &kernel{w: w, node: name, boot: w.boot()}
		w.startAgent(w.kernels[name])
	}
}

func (w *world) counter() {
	ctx := context.Background()
	x := &v1alpha1.XDPCounter{ObjectMeta: metav1.ObjectMeta{Name: []string{"a", "b"}[w.random.IntN(2)]}}
	there := w.live.Get(ctx, types.NamespacedName{Name: x.Name}, x) == nil
	x.Spec = v1alpha1.XDPCounterSpec{Suspend: w.random.IntN(5) == 0, AttachMode: []v1alpha1.AttachMode{"Auto", "Native", "Generic"}[w.random.IntN(3)]}
	if w.random.IntN(2) == 0 {
		x.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "edge"}}
	}
	if w.random.IntN(2) == 0 {
		x.Spec.Interfaces = &v1alpha1.InterfaceSelector{Names: []v1alpha1.InterfacePattern{"eth*"}}
	}
	switch {
	case !there:
		w.must(w.live.Create(ctx, x))
	case w.random.IntN(5) == 0:
		w.must(w.live.Delete(ctx, x))
	default:
		w.must(w.live.Update(ctx, x))
	}
	w.logf("counter %s: %+v", x.UID, x.Spec)
}

func (w *world) pass(k *kernel) {
	w.logf("pass on %s", k.node)
	w.acting = k
	defer func() { w.acting = nil }()
	defer w.recover(func() { w.startAgent(k) })
	if _, err := k.agent.Reconcile(context.Background(), ctrl.Request{}); err != nil && !errors.Is(err, errFault) {
		w.fatalf("%v", err)
	}
}

func (w *world) reconcile(which int, name string) {
	w.logf("reconcile %T %s", w.reconcilers[which], name)
	defer w.recover(w.startController)
	_, err := w.reconcilers[which].Reconcile(context.Background(), ctrl.Request{NamespacedName: types.NamespacedName{Name: name}})
	if err != nil && !errors.Is(err, errFault) {
		w.fatalf("%v", err)
	}
}

func (w *world) recover(restart func()) {
	switch e := recover().(type) {
	case nil:
	case killed:
		restart()
	default:
		panic(e)
	}
}

func (w *world) traffic() {
	for _, name := range []string{"n1", "n2", "n3"} {
		if k := w.kernels[name]; k != nil && !w.still {
			k.receive(w.random)
		}
	}
}

// written sees each version of every object.
func (w *world) written(change memapi.Change) {
	switch o := change.New.(type) {
	case *v1alpha1.XDPCounter:
		if err := w.highest.CheckCounter(o); err != nil {
			w.fatalf("%v", err)
		}
	case *v1alpha1.XDPNodeState:
		if w.acting == nil {
			return
		}
		for uid, growth := range w.acting.book(o) {
			w.booked[uid] = w.booked[uid].Plus(growth)
		}
	}
}

// end lets everything come to rest and compares.
func (w *world) end() {
	w.logf("the end: everything comes to rest")
	w.still, w.calls = true, 0
	for range 15 {
		for _, name := range []string{"n1", "n2", "n3", "a", "b"} {
			for _, kind := range memapi.Kinds() {
				for more := true; more; {
					_, more = w.cache.Next(kind)
				}
			}
			w.reconcile(0, name)
			w.reconcile(1, name)
			if k := w.kernels[name]; k != nil {
				for more := true; more; {
					_, more = k.cache.Next(memapi.NodeStates)
				}
				w.clock.Step(time.Minute)
				w.pass(k)
			}
		}
	}
	list := &v1alpha1.XDPCounterList{}
	w.must(w.live.List(context.Background(), list))
	for _, x := range list.Items {
		want := w.booked[x.UID]
		if got := v1alpha1.TotalsOfProtocols(x.Status.Protocols); got != want {
			w.fatalf("counter %s says %v, want %v; retired %+v", x.UID, got.Sum(), want.Sum(), x.Status.Retired)
		}
	}
	for _, k := range w.kernels {
		if slices.ContainsFunc(k.pins, func(p *pinned) bool { return p.booked != p.counts }) {
			w.fatalf("in the end a map of %s holds what is in no report", k.node)
		}
	}
}

// boot returns a boot ID, which is never used twice.
func (w *world) boot() string {
	w.boots++
	return fmt.Sprint("boot", w.boots)
}
