// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/scheme"
)

// node is a kernel and an API server of a test: interfaces, what is attached to them, and the steps that the agent
// takes, in order. It is the agent's Datapath and Links.
type node struct {
	t            *testing.T
	client       client.Client
	clock        *testclock.FakeClock
	agent        *Agent
	steps        []string
	interfaces   []plan.Interface
	attached     []plan.Attachment
	counts       map[uint32]uint64 // packets by map
	nextID       uint32
	refuse       map[string]error // Attach's answer by the interface's name
	generic      bool             // no driver has native XDP
	hidden       bool             // the pins are not visible
	sctp         bool             // the kernel's SCTP is loaded
	noWireFrames bool             // the kernel loads no program that counts the frames of an aggregate
	tunnels      bool             // IPsec decrypts tunnels
	asked        bool             // the agent has asked for tunnels
	saveError    error
	routeReads   int // calls of Primary

	detachError error
}

var errAPIDown = errors.New("the API server is away")

// errHidden is the error of the datapath while no BPF file system is mounted.
var errHidden = fmt.Errorf("%w at /sys/fs/bpf", plan.ErrBPFFSNotMounted)

func newNode(t *testing.T, counters ...v1alpha1.NodeCounter) *node {
	t.Helper()
	n := &node{
		t:          t,
		clock:      testclock.NewFakeClock(turnAfter(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), 100*time.Second, "n1")),
		interfaces: []plan.Interface{{Name: "lo", Index: 1}, {Name: "eth0", Index: 2, MTU: 1500, Driver: "virtio_net", Primary: true}, {Name: "eth1", Index: 3}},
		counts:     map[uint32]uint64{},
		nextID:     100,
		refuse:     map[string]error{},
	}
	state := &v1alpha1.XDPNodeState{ObjectMeta: metav1.ObjectMeta{Name: "n1", Generation: 1}}
	state.Spec.ReportInterval.Duration = 10 * time.Second
	state.Spec.Counters = counters
	n.client = fake.NewClientBuilder().WithScheme(scheme.New()).WithStatusSubresource(state).WithObjects(state).
		WithInterceptorFuncs(interceptor.Funcs{
			SubResourceUpdate: func(ctx context.Context, c client.Client, name string, o client.Object, opts ...client.SubResourceUpdateOption) error {
				if n.saveError != nil {
					n.step("save refused")
					return n.saveError
				}
				n.step("save")
				return c.SubResource(name).Update(ctx, o, opts...)
			},
		}).Build()
	n.agent = &Agent{Client: n.client, Node: "n1", Info: v1alpha1.AgentInfo{BootID: "boot"}, Datapath: n, Links: n, Clock: n.clock}
	return n
}

func (n *node) step(format string, args ...any) {
	n.steps = append(n.steps, fmt.Sprintf(format, args...))
}

func (n *node) List() ([]plan.Interface, error) {
	list := slices.Clone(n.interfaces)
	for i := range list {
		list[i].Primary = false // as the kernel's list of interfaces has no routes
	}
	return list, nil
}

func (n *node) Primary() (map[int]bool, error) {
	n.routeReads++
	primary := map[int]bool{}
	for _, i := range n.interfaces {
		primary[i.Index] = i.Primary
	}
	return primary, nil
}

func (n *node) HasSCTP() bool { return n.sctp }

func (n *node) DecryptsTunnels() bool {
	n.asked = true
	return n.tunnels
}

func (n *node) Attached() ([]plan.Attachment, error) {
	if n.hidden {
		return nil, errHidden
	}
	return slices.Clone(n.attached), nil
}

func (n *node) CountsWireFrames() bool { return !n.noWireFrames }

func (n *node) NewestMap() (traffic.MapID, error) {
	n.nextID++
	return traffic.MapID{Boot: "boot", ID: n.nextID}, nil
}

func (n *node) Attach(a plan.Attachment) error {
	if n.hidden {
		n.step("attach %s hidden", a.Name)
		return errHidden
	}
	if err := n.refuse[a.Name]; err != nil {
		n.step("attach %s refused", a.Name)
		return err
	}
	if slices.ContainsFunc(n.attached, func(b plan.Attachment) bool { return b.Pin == a.Name }) {
		n.step("attach %s pending", a.Name)
		return plan.ErrPending
	}
	n.step("attach %s", a.Name)
	n.nextID++
	for i := range n.interfaces {
		if n.interfaces[i].Index == a.Index {
			n.interfaces[i].Hook = plan.Hook{Program: n.nextID, Mode: plan.Native}
			if n.generic || a.Mode == plan.Auto && a.First == plan.Generic {
				n.interfaces[i].Hook.Mode = plan.Generic
			}
		}
	}
	n.attached = append(n.attached, plan.Attachment{Index: a.Index, ViaDispatcher: a.ViaDispatcher, Program: n.nextID, Map: n.nextID, Pin: a.Name})
	return nil
}

func (n *node) Detach(a plan.Attachment) error {
	if n.hidden {
		n.step("detach %s hidden", a.Pin)
		return errHidden
	}
	if n.detachError != nil {
		n.step("detach %s refused", a.Pin)
		return n.detachError
	}
	n.step("detach %s", a.Pin)
	n.attached = slices.DeleteFunc(n.attached, func(b plan.Attachment) bool { return a.Pin == b.Pin })
	for i := range n.interfaces {
		if n.interfaces[i].Hook.Program == a.Program {
			n.interfaces[i].Hook = plan.Hook{}
		}
	}
	return nil
}

func (n *node) Read() ([]traffic.Reading, error) {
	if n.hidden {
		n.step("read hidden")
		return nil, errHidden
	}
	n.step("read")
	var readings []traffic.Reading
	for _, a := range n.attached {
		r := traffic.Reading{Map: traffic.MapID{Boot: "boot", ID: a.Map}, Index: a.Index}
		r.Totals[traffic.IP(traffic.IPv4, 6)] = traffic.Counts{Packets: n.counts[a.Map], Bytes: 100 * n.counts[a.Map]}
		readings = append(readings, r)
	}
	return readings, nil
}

// receive lets packets of 100 bytes come in on an interface, which count if a program is attached.
func (n *node) receive(name string, packets uint64) {
	for _, a := range n.attached {
		for _, i := range n.interfaces {
			if i.Name == name && a.Live(i) {
				n.counts[a.Map] += packets
			}
		}
	}
}

// pass makes one pass and returns its steps.
func (n *node) pass() (steps []string, result ctrl.Result, err error) {
	n.steps = nil
	result, err = n.agent.Reconcile(n.t.Context(), ctrl.Request{})
	return n.steps, result, err
}

// settle makes passes until none asks for a follow-up.
func (n *node) settle() {
	n.t.Helper()
	for range 10 {
		_, result, err := n.pass()
		if err != nil {
			n.t.Fatal(err)
		}
		if result.RequeueAfter >= attachRetryInterval {
			return
		}
	}
	n.t.Fatal("ten passes did not settle the node")
}

func (n *node) state() *v1alpha1.XDPNodeState {
	n.t.Helper()
	state := &v1alpha1.XDPNodeState{}
	if err := n.client.Get(n.t.Context(), types.NamespacedName{Name: "n1"}, state); err != nil {
		n.t.Fatal(err)
	}
	return state
}

func (n *node) edit(change func(*v1alpha1.XDPNodeState)) {
	n.t.Helper()
	state := n.state()
	change(state)
	state.Generation++
	if err := n.client.Update(n.t.Context(), state); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) accounts() map[string]int64 {
	n.t.Helper()
	accounts := map[string]int64{}
	for _, a := range n.state().Status.Accounts {
		accounts[string(a.UID)] = int64(a.Sum().Packets)
	}
	return accounts
}

func (n *node) expectSteps(want ...string) {
	n.t.Helper()
	steps, _, err := n.pass()
	if err != nil {
		n.t.Fatal(err)
	}
	if diff := cmp.Diff(want, steps); diff != "" {
		n.t.Fatalf("steps of the pass (-want +got):\n%s", diff)
	}
}

func counter(uid string) v1alpha1.NodeCounter {
	return v1alpha1.NodeCounter{
		Name: uid, UID: types.UID(uid), Generation: 1, Primary: true,
	}
}

// sharing is a counter that shares hooks.
func sharing(uid string) v1alpha1.NodeCounter {
	c := counter(uid)
	c.Coexistence = v1alpha1.CoexistenceDispatcher
	return c
}
