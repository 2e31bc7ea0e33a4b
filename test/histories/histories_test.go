// SPDX-License-Identifier: Apache-2.0

// Package histories runs the real agents and the real controllers together, on an API server in memory and kernels in
// memory, through random histories.
package histories

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/xdp-operator/xdp-operator/agent"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/controllers"
	"github.com/xdp-operator/xdp-operator/test/util/audit"
	"github.com/xdp-operator/xdp-operator/test/util/history"
	"github.com/xdp-operator/xdp-operator/test/util/memapi"
)

// In the end each XDPCounter says what the maps of all nodes have counted for it, as far as it was ever read and saved,
// and no version of it says less than one before. The clocks of nodes and controllers are wrong by hours, and an agent is late
// only if it has stopped.
func TestRandomHistoriesOfAgentsAndControllersKeepEveryTotal(t *testing.T) {
	history.Run(t, 150, 150, func(h *history.History) history.Scenario {
		w := &world{
			History: h, machines: map[string]*machine{},
			booked: map[types.UID]traffic.Totals{}, highest: audit.Highest{}, opened: map[types.UID]bool{},
		}
		h.Server.Written = w.written
		w.startController()
		return w
	})
}

// machine is a node's machine with eth0, which is primary, and eth1.
type machine struct {
	*history.Kernel

	agent *agent.Agent
	skew  time.Duration // of the machine's clock
}

type world struct {
	*history.History

	machines    map[string]*machine // by node
	acting      *machine            // whose agent makes a pass
	cache       *memapi.Cache       // of the controller
	reconcilers []reconcile.Reconciler
	boots       int

	booked  map[types.UID]traffic.Totals // by counter, what was booked for it in any node state
	highest audit.Highest
	opened  map[types.UID]bool // node states that have a report
}

func (w *world) startController() {
	w.cache = w.Server.NewCache()
	client, live := &memapi.Client{Server: w.Server, Cache: w.cache, Fault: w.between}, &memapi.Client{Server: w.Server, Fault: w.between}
	clock := history.Skewed{PassiveClock: w.Clock, By: w.Skew()}
	states := &controllers.NodeStateReconciler{Client: client, Live: live, Clock: clock}
	w.reconcilers = []reconcile.Reconciler{
		states,
		&controllers.XDPCounterReconciler{Client: client, Live: live, Clock: clock, Events: &events.FakeRecorder{}, Rescuing: states.Rescuing},
	}
}

// startMachine boots a machine, whose agent starts.
func (w *world) startMachine(node string) {
	m := &machine{skew: w.Skew(), Kernel: &history.Kernel{
		History: w.History, Node: node, Boot: w.boot(), Between: w.between, Opened: w.opened,
		Interfaces: []plan.Interface{{Name: "eth0", Index: 2, MTU: 1500, Primary: true}, {Name: "eth1", Index: 3, MTU: 1500}},
	}}
	w.machines[node] = m
	w.startAgent(m)
}

func (w *world) startAgent(m *machine) {
	m.agent = &agent.Agent{
		Client: m.StartAgent(), Node: m.Node,
		Info: v1alpha1.AgentInfo{BootID: m.Boot}, Datapath: m, Links: m,
		Clock: history.Skewed{PassiveClock: w.Clock, By: m.skew},
	}
}

// between is asked at each call of an agent or the controller.
func (w *world) between(point string) error {
	if w.Still {
		return nil
	}
	w.traffic()
	return w.Call(point)
}

// Step implements history.Scenario.
func (w *world) Step() {
	w.Clock.Step(time.Duration(w.Random.IntN(8)) * time.Second)
	w.traffic()
	w.Arm(0, nil)
	if w.Random.IntN(4) == 0 {
		w.Arm(1+w.Random.IntN(15), history.OneOf(w.History, nil, history.ErrFault))
	}
	name := history.OneOf(w.History, "n1", "n2", "n3")
	switch w.Random.IntN(10) {
	case 0:
		w.node(name)
	case 1:
		w.counter()
	case 2, 3, 4:
		for range 1 + w.Random.IntN(4) {
			w.cache.Next(history.OneOf(w.History, memapi.Kinds()...))
		}
		w.reconcile(w.Random.IntN(2), history.OneOf(w.History, "n1", "n2", "n3", "a", "b"))
	default:
		if m := w.machines[name]; m != nil {
			m.Cache.Next(memapi.NodeStates)
			w.pass(m)
		}
	}
}

// node lets a node join, leave, be labelled or restart.
func (w *world) node(name string) {
	ctx := context.Background()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pool": history.OneOf(w.History, "edge", "core")}}}
	switch event := w.Random.IntN(6); {
	case w.machines[name] == nil:
		w.Logf("the machine %s comes", name)
		w.startMachine(name)
		fallthrough
	case event < 2:
		if w.Live.Create(ctx, node) == nil {
			w.Logf("node %s joins", name)
		}
	case event == 2:
		if w.Live.Delete(ctx, node) == nil {
			w.Logf("node %s leaves", name)
			if w.Random.IntN(2) == 0 {
				w.Logf("its machine too")
				delete(w.machines, name)
			}
		}
	case event == 3:
		if old := (&corev1.Node{}); w.Exists(name, old) {
			old.Labels = node.Labels
			w.Must(w.Live.Update(ctx, old))
			w.Logf("node %s is labelled %v", name, node.Labels)
		}
	case event == 4:
		w.Logf("%s restarts", name)
		w.startMachine(name)
	}
}

func (w *world) counter() {
	ctx := context.Background()
	x := &v1alpha1.XDPCounter{ObjectMeta: metav1.ObjectMeta{Name: history.OneOf(w.History, "a", "b")}}
	there := w.Exists(x.Name, x)
	x.Spec = v1alpha1.XDPCounterSpec{Suspend: w.Random.IntN(5) == 0, AttachMode: history.OneOf[v1alpha1.AttachMode](w.History, "Auto", "Native", "Generic")}
	if w.Random.IntN(2) == 0 {
		x.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "edge"}}
	}
	if w.Random.IntN(2) == 0 {
		x.Spec.Interfaces = &v1alpha1.InterfaceSelector{Names: []v1alpha1.InterfacePattern{"eth*"}}
	}
	switch {
	case !there:
		w.Must(w.Live.Create(ctx, x))
	case w.Random.IntN(5) == 0:
		w.Must(w.Live.Delete(ctx, x))
	default:
		w.Must(w.Live.Update(ctx, x))
	}
	w.Logf("counter %s: %+v", x.UID, x.Spec)
}

func (w *world) pass(m *machine) {
	w.Logf("pass on %s", m.Node)
	w.acting = m
	defer func() { w.acting = nil }()
	w.Run(func() { w.expect(m.agent.Reconcile(context.Background(), ctrl.Request{})) }, func() { w.startAgent(m) })
}

func (w *world) reconcile(which int, name string) {
	w.Logf("reconcile %T %s", w.reconcilers[which], name)
	request := ctrl.Request{NamespacedName: types.NamespacedName{Name: name}}
	w.Run(func() { w.expect(w.reconcilers[which].Reconcile(context.Background(), request)) }, w.startController)
}

// expect fails the test if a pass fails without a fault.
func (w *world) expect(_ ctrl.Result, err error) {
	if err != nil && !errors.Is(err, history.ErrFault) {
		w.Fatalf("%v", err)
	}
}

func (w *world) traffic() {
	for _, name := range []string{"n1", "n2", "n3"} {
		if m := w.machines[name]; m != nil && !w.Still {
			m.Receive()
		}
	}
}

// written sees each version of every object.
func (w *world) written(change memapi.Change) {
	switch o := change.New.(type) {
	case *v1alpha1.XDPCounter:
		if err := w.highest.CheckCounter(o); err != nil {
			w.Fatalf("%v", err)
		}
	case *v1alpha1.XDPNodeState:
		if w.acting == nil {
			return
		}
		for uid, growth := range w.acting.Book(o) {
			w.booked[uid] = w.booked[uid].Plus(growth)
		}
	}
}

// End implements history.Scenario.
func (w *world) End() {
	for range 15 {
		w.round(true)
	}
	list := &v1alpha1.XDPCounterList{}
	w.Must(w.Live.List(context.Background(), list))
	for _, x := range list.Items {
		want := w.booked[x.UID]
		if got := v1alpha1.TotalsOfProtocols(x.Status.Protocols); got != want {
			w.Fatalf("counter %s says %v, want %v; retired %+v", x.UID, got.Sum(), want.Sum(), x.Status.Retired)
		}
	}
	w.expectLate("all have reported", false)
	w.Clock.Step(30 * time.Hour) // longer than the agents wait for any report
	w.round(false)
	w.expectLate("all have stopped", true)
	w.startController()
	w.round(false)
	w.expectLate("all have stopped, and the controller has started again", true)
	for range 3 {
		w.round(true)
	}
	w.expectLate("all have reported again", false)
	for _, k := range w.machines {
		if slices.ContainsFunc(k.Maps, func(m *history.Map) bool { return m.Booked != m.Counts }) {
			w.Fatalf("in the end a map of %s holds what is in no report", k.Node)
		}
	}
}

// round lets the controller do everything, and the agents too if they run.
func (w *world) round(agents bool) {
	for _, name := range []string{"n1", "n2", "n3", "a", "b"} {
		history.DeliverAll(w.cache, memapi.Kinds()...)
		w.reconcile(0, name)
		w.reconcile(1, name)
		if m := w.machines[name]; m != nil && agents {
			history.DeliverAll(m.Cache, memapi.NodeStates)
			w.Clock.Step(time.Minute)
			w.pass(m)
		}
	}
}

// expectLate compares how many agents each XDPCounter reports as late: all or none.
func (w *world) expectLate(what string, late bool) {
	list := &v1alpha1.XDPCounterList{}
	w.Must(w.Live.List(context.Background(), list))
	for _, x := range list.Items {
		got, want := 0, 0
		for _, f := range x.Status.Failures {
			if f.Reason == v1alpha1.ReasonAgentNotReporting {
				got++
			}
		}
		if late {
			want = int(x.Status.Nodes.Selected)
		}
		if got != want {
			w.Fatalf("%s: counter %s has %d late agents, want %d: %+v", what, x.UID, got, want, x.Status.Failures)
		}
	}
}

// boot returns a boot ID, which is never used twice.
func (w *world) boot() string {
	w.boots++
	return fmt.Sprint("boot", w.boots)
}
