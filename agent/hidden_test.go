// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// hiddenEntry is what matters of an entry in status.interfaces while the pins are hidden.
type hiddenEntry struct {
	Name     string
	State    v1alpha1.InterfaceState
	Reason   string
	Counters []types.UID
	Map      int64
	Packets  int64
}

func (n *node) entries() (list []hiddenEntry) {
	n.t.Helper()
	for _, i := range n.state().Status.Interfaces {
		list = append(list, hiddenEntry{i.Name, i.State, i.Reason, i.Counters, i.Map, packetsOf(v1alpha1.TotalsOf(i.Counts))})
	}
	return list
}

// restart replaces the agent by one that remembers nothing.
func (n *node) restart() {
	n.agent = &Agent{Client: n.client, Node: "n1", Info: n.agent.Info, Datapath: n, Links: n, Clock: n.clock}
}

// report makes the passes that are due when the next report is.
func (n *node) report() {
	n.t.Helper()
	n.clock.Step(time.Hour)
	n.settle()
}

func TestAgentStartsWithoutABPFFileSystem(t *testing.T) {
	n := newNode(t, everyEthernet("a", ""))
	n.hidden = true
	steps, result, err := n.pass()
	if err != nil || !slices.Equal(steps, []string{"save"}) || result.RequeueAfter > attachRetryInterval {
		t.Fatalf("the pass took the steps %q and returned %v, %v", steps, result, err)
	}
	if err := n.agent.Ready(nil); err != nil {
		t.Errorf("the agent reports and is not ready: %v", err)
	}
	want := []hiddenEntry{
		{Name: "eth0", State: v1alpha1.InterfaceFailed, Reason: v1alpha1.ReasonBPFFSNotMounted, Counters: []types.UID{"a"}},
		{Name: "eth1", State: v1alpha1.InterfaceFailed, Reason: v1alpha1.ReasonBPFFSNotMounted, Counters: []types.UID{"a"}},
	}
	if diff := cmp.Diff(want, n.entries()); diff != "" {
		t.Errorf("interfaces (-want +got):\n%s", diff)
	}
	status := n.state().Status
	const message = "no BPF file system is mounted at /sys/fs/bpf; remedy: mount the BPF file system on the node; on the node: mount -t bpf bpf /sys/fs/bpf"
	if got := status.Interfaces[0].Message; got != message {
		t.Errorf("message\n%s\nwant\n%s", got, message)
	}
	if ready := status.Conditions[0]; ready.Reason != v1alpha1.ReasonNothingAttached ||
		ready.Message != "2 of 2 interfaces are not counted: eth0 (BPFFSNotMounted), eth1 (BPFFSNotMounted)" {
		t.Errorf("Ready: %s: %s", ready.Reason, ready.Message)
	}
	if status.ObservedGeneration != 1 {
		t.Errorf("the report is of generation %d", status.ObservedGeneration)
	}
	n.expectSteps() // nothing new: nothing is written

	n.hidden = false
	n.expectSteps("attach eth0", "attach eth1", "read", "save")
	n.receive("eth0", 5)
	n.receive("eth1", 2)
	n.report()
	if diff := cmp.Diff(map[string]int64{"a": 7}, n.accounts()); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

func TestAgentIsRestartedAfterTenMinutesWithoutABPFFileSystem(t *testing.T) {
	n := newNode(t, counter("a"))
	passes := func(minutes int) {
		t.Helper()
		for range minutes {
			n.clock.Step(time.Minute)
			n.settle()
		}
	}
	alive := func(want bool, when string) {
		t.Helper()
		if err := n.agent.Alive(nil); (err == nil) != want {
			t.Errorf("%s: %v", when, err)
		}
	}
	n.hidden = true
	n.settle()
	passes(10)
	alive(true, "after ten minutes")
	n.hidden = false
	passes(1)
	n.hidden = true
	passes(11)
	alive(true, "ten minutes after it disappeared again")
	passes(1)
	alive(false, "eleven minutes after it disappeared again")
	n.hidden = false
	n.settle()
	alive(true, "when it is visible")
}

func TestCountsAreKeptWhilePinsAreHidden(t *testing.T) {
	for name, meanwhile := range map[string]func(n *node){
		"nothing else happens":              func(*node) {},
		"the agent restarts":                (*node).restart,
		"a report is made, and another":     func(n *node) { n.report(); n.report() },
		"a report is made, and it restarts": func(n *node) { n.report(); n.restart() },
		"the report is emptied by hand":     func(n *node) { n.emptyStatus(); n.report() },
		"the pins appear for a while":       func(n *node) { n.hidden = false; n.settle(); n.hidden = true },
		"they disappear before a report": func(n *node) {
			n.hidden = false
			n.saveError = errAPIDown
			_, _, _ = n.pass()
			n.saveError, n.hidden = nil, true
		},
		"the interface gets another name":    func(n *node) { n.interfaces[1].Name = "lan0"; n.settle(); n.interfaces[1].Name = "eth0" },
		"the interface is not selected once": func(n *node) { n.deselect(true); n.settle(); n.deselect(false) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, counter("a"))
			n.settle()
			n.receive("eth0", 5)
			n.report()
			before := n.entries()
			n.receive("eth0", 7)
			n.hidden = true
			n.settle()
			want := slices.Clone(before)
			want[0].State, want[0].Reason = v1alpha1.InterfaceFailed, v1alpha1.ReasonBPFFSNotMounted
			if diff := cmp.Diff(want, n.entries()); diff != "" {
				t.Errorf("interfaces (-want +got):\n%s", diff)
			}
			n.receive("eth0", 3)
			meanwhile(n)
			n.settle()
			n.receive("eth0", 2)
			n.hidden = false
			steps, _, err := n.pass()
			if err != nil || slices.ContainsFunc(steps, func(s string) bool { return s != "read" && s != "save" }) {
				t.Errorf("when the pins are visible again, the pass takes the steps %q, %v", steps, err)
			}
			n.report()
			if diff := cmp.Diff(map[string]int64{"a": 17}, n.accounts()); diff != "" {
				t.Errorf("accounts (-want +got):\n%s", diff)
			}
			want = before
			want[0].Packets = 17
			if diff := cmp.Diff(want, n.entries()); diff != "" {
				t.Errorf("interfaces when the pins are visible again (-want +got):\n%s", diff)
			}
		})
	}
}

func (n *node) emptyStatus() {
	n.t.Helper()
	state := n.state()
	state.Status = v1alpha1.XDPNodeStateStatus{}
	if err := n.client.Status().Update(n.t.Context(), state); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) deselect(inactive bool) {
	n.t.Helper()
	n.edit(func(s *v1alpha1.XDPNodeState) { s.Spec.Counters[0].Inactive = inactive })
}

func TestSpecChangesWhilePinsAreHidden(t *testing.T) {
	const notMounted = v1alpha1.ReasonBPFFSNotMounted
	for name, tc := range map[string]struct {
		counters []v1alpha1.NodeCounter // from then on
		hidden   []hiddenEntry          // of the map with 5 packets
		visible  []string               // steps
		want     map[string]int64
	}{
		"a counter is added: what was counted before is not its own": {
			[]v1alpha1.NodeCounter{counter("a"), counter("b")},
			[]hiddenEntry{
				{Name: "eth0", State: v1alpha1.InterfaceFailed, Reason: notMounted, Counters: []types.UID{"a"}, Map: 101, Packets: 5},
				{Name: "eth0", State: v1alpha1.InterfaceFailed, Reason: notMounted, Counters: []types.UID{"b"}},
			},
			[]string{"read", "save"}, map[string]int64{"a": 14, "b": 2},
		},
		"the counter is suspended: it counts until it can be detached": {
			[]v1alpha1.NodeCounter{{Name: "a", UID: "a", Primary: true, Inactive: true}},
			[]hiddenEntry{{Name: "eth0", State: v1alpha1.InterfaceDetaching, Counters: []types.UID{"a"}, Map: 101, Packets: 5}},
			[]string{"read", "save", "detach eth0"}, map[string]int64{"a": 12},
		},
		"another counter selects the interface instead": {
			[]v1alpha1.NodeCounter{{Name: "a", UID: "a", Primary: true, Inactive: true}, counter("b")},
			[]hiddenEntry{
				{Name: "eth0", State: v1alpha1.InterfaceDetaching, Counters: []types.UID{"a"}, Map: 101, Packets: 5},
				{Name: "eth0", State: v1alpha1.InterfaceFailed, Reason: notMounted, Counters: []types.UID{"b"}},
			},
			[]string{"read", "save"}, map[string]int64{"a": 12, "b": 2},
		},
		"another interface is selected": {
			[]v1alpha1.NodeCounter{{Name: "a", UID: "a", Names: []string{"eth1"}}},
			[]hiddenEntry{
				{Name: "eth0", State: v1alpha1.InterfaceDetaching, Counters: []types.UID{"a"}, Map: 101, Packets: 5},
				{Name: "eth1", State: v1alpha1.InterfaceFailed, Reason: notMounted, Counters: []types.UID{"a"}},
			},
			[]string{"attach eth1", "read", "save", "detach eth0"}, map[string]int64{"a": 12},
		},
		"no counter is left": {
			nil,
			[]hiddenEntry{{Name: "eth0", State: v1alpha1.InterfaceDetaching, Counters: []types.UID{"a"}, Map: 101, Packets: 5}},
			[]string{"read", "save", "detach eth0"}, map[string]int64{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, counter("a"))
			n.settle()
			n.receive("eth0", 5)
			n.report()
			n.hidden = true
			n.settle()
			n.receive("eth0", 4)
			n.edit(func(s *v1alpha1.XDPNodeState) { s.Spec.Counters = tc.counters })
			n.settle()
			if diff := cmp.Diff(tc.hidden, n.entries()); diff != "" {
				t.Errorf("interfaces (-want +got):\n%s", diff)
			}
			n.receive("eth0", 3)
			n.restart()
			n.hidden = false
			n.expectSteps(tc.visible...)
			n.receive("eth0", 2)
			n.report()
			if diff := cmp.Diff(tc.want, n.accounts()); diff != "" {
				t.Errorf("accounts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnInterfaceThatVanishesWhilePinsAreHiddenIsReadToItsLastPacket(t *testing.T) {
	n := newNode(t, counter("a"))
	n.settle()
	n.receive("eth0", 5)
	n.report()
	n.receive("eth0", 4)
	n.hidden = true
	n.interfaces = slices.Delete(n.interfaces, 1, 2)
	n.attached[0].Index = 0
	n.settle()
	want := []hiddenEntry{{State: v1alpha1.InterfaceDetaching, Counters: []types.UID{"a"}, Map: 101, Packets: 5}}
	if diff := cmp.Diff(want, n.entries()); diff != "" {
		t.Errorf("interfaces (-want +got):\n%s", diff)
	}
	n.hidden = false
	n.expectSteps("read", "save", "detach eth0")
	n.report()
	if diff := cmp.Diff(map[string]int64{"a": 9}, n.accounts()); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

// The first report of a node state opens its ledger. Maps that exist then were counted for another node state, also if they are
// not visible.
func TestWhatHiddenMapsHaveCountedBeforeANodeStateIsNotCountedAgain(t *testing.T) {
	n := newNode(t, counter("a"))
	if err := n.Attach(plan.Attachment{Name: "eth0", Index: 2}); err != nil {
		t.Fatal(err)
	}
	n.receive("eth0", 1000)
	n.hidden = true
	n.settle()
	n.receive("eth0", 100)
	n.restart()
	n.settle()
	n.hidden = false
	n.settle()
	n.receive("eth0", 3)
	n.report()
	if diff := cmp.Diff(map[string]int64{"a": 3}, n.accounts()); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
}

func TestWithoutANodeStateHiddenPinsAreDetachedWhenTheyAppear(t *testing.T) {
	n := newNode(t, counter("a"))
	n.settle()
	n.hidden = true
	if err := n.client.Delete(t.Context(), n.state()); err != nil {
		t.Fatal(err)
	}
	steps, result, err := n.pass()
	if err != nil || len(steps) > 0 || result.RequeueAfter != attachRetryInterval {
		t.Errorf("the pass took the steps %q and returned %v, %v", steps, result, err)
	}
	n.hidden = false
	n.expectSteps("detach eth0")
}

// disappearing hides the pins at one of the calls of a pass.
type disappearing struct {
	*node
	at string
}

func (d disappearing) Attach(a plan.Attachment) error {
	d.hidden = d.hidden || d.at == "attach"
	return d.node.Attach(a)
}

func (d disappearing) Read() ([]traffic.Reading, error) {
	d.hidden = d.hidden || d.at == "read"
	return d.node.Read()
}

func (d disappearing) Detach(a plan.Attachment) error {
	d.hidden = d.hidden || d.at == "detach"
	return d.node.Detach(a)
}

func TestPinsDisappearDuringAPass(t *testing.T) {
	for at, want := range map[string][]string{
		"attach": {"attach eth1 hidden", "save"},
		"read":   {"attach eth1", "read hidden"},
		"detach": {"attach eth1", "read", "save", "detach eth0 hidden"},
	} {
		t.Run(at, func(t *testing.T) {
			n := newNode(t, counter("a"))
			n.settle()
			n.receive("eth0", 5)
			n.edit(func(s *v1alpha1.XDPNodeState) {
				s.Spec.Counters[0].Primary, s.Spec.Counters[0].Names = false, []string{"eth1"}
			})
			n.agent.Datapath = disappearing{n, at}
			n.expectSteps(want...)
			n.receive("eth0", 3)
			n.receive("eth1", 4)
			n.settle()
			if got := n.entries()[0]; got.Name != "eth0" || got.State != v1alpha1.InterfaceDetaching || got.Map != 101 {
				t.Errorf("the first interface is reported as %+v", got)
			}
			n.agent.Datapath, n.hidden = n, false
			n.settle()
			n.report()
			sum := map[string]int64{"attach": 8, "read": 12, "detach": 9}[at] // with detach, eth0 was saved as not selected any more
			if diff := cmp.Diff(map[string]int64{"a": sum}, n.accounts()); diff != "" {
				t.Errorf("accounts (-want +got):\n%s", diff)
			}
		})
	}
}
