// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/history"
	"github.com/xdp-operator/xdp-operator/test/util/memapi"
)

// Random histories of one node: what its kernel, its interfaces, its users and its API server may do, at any step of a
// pass, and an agent that is killed at any of them. In each version of its node state the accounts are what the model of
// history.Kernel says, no account falls, and no map is given up whose counts are not saved.
func TestRandomHistoriesOfANodeKeepEveryAccount(t *testing.T) {
	history.Run(t, 1000, 60, func(h *history.History) history.Scenario {
		n := &nodeHistory{History: h, nextIndex: 1}
		n.kernel = &history.Kernel{
			History: h, Node: "n1", Boot: "boot0", Opened: map[types.UID]bool{},
			Between: n.between, Attaching: n.attaching, Detaching: n.detaching,
		}
		h.Server.Written = n.written
		n.addInterface("eth0")
		n.addInterface("eth1")
		n.makeState()
		n.startAgent()
		return n
	})
}

// nodeHistory is a node, its agent, and what has to be in its accounts.
type nodeHistory struct {
	*history.History

	kernel *history.Kernel
	agent  *Agent
	down   bool // the API server is away

	boots     int
	nextIndex int
	noDetach  bool
	inPass    bool
	editing   bool // it is not the agent that writes
	emptied   bool // the status, by hand, and not written since

	opened types.UID                    // of the node state that has a report
	want   map[types.UID]traffic.Totals // its accounts
}

func (h *nodeHistory) startAgent() {
	client := h.kernel.StartAgent()
	between := client.Fault
	client.Fault = func(point string) error {
		if err := between(point); err != nil || !h.down {
			return err
		}
		return errAPIDown
	}
	h.agent = &Agent{
		Client: client, Node: "n1",
		Info: v1alpha1.AgentInfo{BootID: h.kernel.Boot}, Datapath: h.kernel, Links: h.kernel, Clock: h.Clock,
	}
}

// between is asked at each step of the agent: packets arrive, users act, and it may be killed.
func (h *nodeHistory) between(point string) error {
	if !h.inPass || h.Still {
		return nil
	}
	h.kernel.Receive()
	if h.Random.IntN(30) == 0 {
		h.Logf("  %s:", point)
		h.edit()
	}
	if h.Random.IntN(100) == 0 {
		h.Logf("  %s:", point)
		h.hide()
	}
	return h.Call(point)
}

func (h *nodeHistory) pass() {
	h.inPass = true
	defer func() { h.inPass = false }()
	h.Run(func() {
		_, err := h.agent.Reconcile(context.Background(), ctrl.Request{})
		if err != nil && !h.down && !h.noDetach {
			h.Fatalf("%v", err)
		}
	}, h.startAgent)
}

// Step implements history.Scenario.
func (h *nodeHistory) Step() {
	h.event()
	h.pass()
}

func (h *nodeHistory) event() {
	h.Clock.Step(time.Duration(h.Random.IntN(15)) * time.Second)
	h.Arm(0, nil)
	some := []string{"eth0", "eth1"}[h.Random.IntN(2)]
	at := slices.IndexFunc(h.kernel.Interfaces, func(i plan.Interface) bool { return i.Name == some })
	switch h.Random.IntN(20) {
	case 0, 1, 2:
		h.edit()
	case 3, 4, 5:
		h.kernel.Cache.Next(memapi.NodeStates)
	case 6:
		h.Arm(1+h.Random.IntN(14), nil)
	case 7:
		h.Logf("the agent restarts")
		h.startAgent()
	case 8:
		if h.Random.IntN(3) == 0 {
			h.reboot()
		}
	case 9:
		h.down = !h.down
		h.Logf("the API server is away: %v", h.down)
	case 10:
		h.noDetach = !h.noDetach
		h.Logf("nothing can be detached: %v", h.noDetach)
	case 11:
		if at >= 0 {
			h.Logf("%s is gone", some)
			h.kernel.RemoveInterface(at)
		}
	case 12:
		if at < 0 {
			if h.Random.IntN(2) == 0 {
				h.nextIndex = 1 // an index that was used before
			}
			h.addInterface(some)
		}
	case 13: // both names change places, or one
		if len(h.kernel.Interfaces) > 0 {
			for i := range h.kernel.Interfaces {
				h.kernel.Interfaces[i].Name = map[string]string{"eth0": "eth1", "eth1": "eth0"}[h.kernel.Interfaces[i].Name]
			}
			h.Logf("renamed: %v", h.kernel.Interfaces)
		}
	case 14:
		if at >= 0 {
			h.kernel.Interfaces[at].MTU = 1500 + h.Random.IntN(2)*7500
			h.Logf("the MTU of %s is %d", some, h.kernel.Interfaces[at].MTU)
		}
	case 15:
		if at >= 0 {
			h.Logf("the link of %s is cut", some)
			h.kernel.Interfaces[at].Hook = plan.Hook{}
		}
	case 16:
		if at >= 0 {
			h.Logf("another program holds the hook of %s", some)
			h.kernel.Interfaces[at].Hook = plan.Hook{Program: 1, Mode: plan.Native}
		}
	case 17:
		for _, p := range h.kernel.Maps {
			p.Outdated = true
		}
	case 18:
		h.hide()
	}
	h.kernel.Receive()
}

// hide makes the pins visible or not.
func (h *nodeHistory) hide() {
	h.kernel.Hidden = !h.kernel.Hidden
	h.Logf("the pins are hidden: %v", h.kernel.Hidden)
}

// edit is what users and the controller do to the node state.
func (h *nodeHistory) edit() {
	h.editing = true
	defer func() { h.editing = false }()
	state, ok := h.state()
	if !ok {
		if h.Random.IntN(2) == 0 {
			h.makeState()
		}
		return
	}
	switch h.Random.IntN(16) {
	case 0:
		h.Logf("the node state is deleted")
		h.Must(h.Live.Delete(context.Background(), state))
	case 1:
		h.Logf("the node state is created again")
		h.Must(h.Live.Delete(context.Background(), state))
		h.makeState()
	case 2:
		h.Logf("the status of the node state is emptied by hand")
		h.emptied = true
		state.Status = v1alpha1.XDPNodeStateStatus{}
		h.Must(h.Live.Status().Update(context.Background(), state))
	default:
		state.Spec.Counters = h.counters(state.Spec.Counters)
		h.Must(h.Live.Update(context.Background(), state))
		h.Logf("the spec is %v", h.told())
	}
}

// counters returns another version of the counters of a node: one comes, goes, is edited, suspended or resumed.
func (h *nodeHistory) counters(list []v1alpha1.NodeCounter) []v1alpha1.NodeCounter {
	uid := []string{"a", "b", "c"}[h.Random.IntN(3)]
	at := slices.IndexFunc(list, func(c v1alpha1.NodeCounter) bool { return c.Name == uid })
	c := counter(uid)
	c.Primary = false
	c.Names = [][]string{{"eth0"}, {"eth1"}, {"eth0", "eth1"}, {"none"}}[h.Random.IntN(4)]
	c.AttachMode = []v1alpha1.AttachMode{"", "", "", "Native", "Generic"}[h.Random.IntN(5)]
	c.Inactive = h.Random.IntN(4) == 0
	switch {
	case at < 0:
		list = append(list, c)
	case h.Random.IntN(6) == 0:
		list = slices.Delete(list, at, at+1)
	default:
		list[at] = c
	}
	slices.SortFunc(list, func(a, b v1alpha1.NodeCounter) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (h *nodeHistory) told() (told []string) {
	state, _ := h.state()
	for _, c := range state.Spec.Counters {
		told = append(told, fmt.Sprint(c.Name, !c.Inactive, c.Names, c.AttachMode))
	}
	return told
}

func (h *nodeHistory) state() (*v1alpha1.XDPNodeState, bool) {
	state := &v1alpha1.XDPNodeState{}
	return state, h.Exists("n1", state)
}

func (h *nodeHistory) makeState() {
	state := &v1alpha1.XDPNodeState{}
	state.Name = "n1"
	state.Spec.ReportInterval.Duration = 10 * time.Second
	all := counter("a")
	all.Primary, all.Names = false, []string{"eth0", "eth1"}
	state.Spec.Counters = []v1alpha1.NodeCounter{all}
	h.Must(h.Live.Create(context.Background(), state))
	h.Logf("a node state is made: %s %v", state.UID, h.told())
}

func (h *nodeHistory) addInterface(name string) {
	for slices.ContainsFunc(h.kernel.Interfaces, func(i plan.Interface) bool { return i.Index == h.nextIndex }) {
		h.nextIndex++
	}
	h.kernel.Interfaces = append(h.kernel.Interfaces, plan.Interface{Name: name, Index: h.nextIndex, MTU: 1500})
	h.Logf("there is %s with index %d", name, h.nextIndex)
	h.nextIndex++
}

func (h *nodeHistory) reboot() {
	h.Logf("reboot")
	h.boots++
	h.kernel.Reboot(fmt.Sprint("boot", h.boots))
	h.startAgent()
}

// attaching checks that an agent attaches only once there is an account.
func (h *nodeHistory) attaching() error {
	seen, ok := h.kernel.Seen()
	if !ok || seen.Status.ReportTime == nil && !h.kernel.Remembers(seen) {
		h.Fatalf("attached before the node state had a report: what the map counts would be nobody's")
	}
	return nil
}

// detaching checks that what was read of a map is saved by now, unless the node state is gone or was created again.
func (h *nodeHistory) detaching(m *history.Map) error {
	if h.noDetach {
		return errors.New("no")
	}
	_, seen := h.kernel.Seen()
	if state, ok := h.state(); ok && seen && h.opened == state.UID && len(m.Counters) > 0 && m.Read != m.Booked {
		h.Fatalf("map %d is given up with counts that are read and not saved", m.Map)
	}
	return nil
}

func packetsOf(t traffic.Totals) int64 { return int64(t.Sum().Packets) }

// written sees each version of the node state. A report books what was read.
func (h *nodeHistory) written(change memapi.Change) {
	state, ok := change.New.(*v1alpha1.XDPNodeState)
	if !ok || h.editing || !h.inPass {
		return
	}
	if h.emptied && !h.kernel.Remembers(state) {
		delete(h.kernel.Opened, state.UID)
	}
	h.emptied = false
	if !h.kernel.Opened[state.UID] {
		h.opened, h.want = state.UID, map[types.UID]traffic.Totals{}
	}
	maps.DeleteFunc(h.want, func(uid types.UID, _ traffic.Totals) bool { return !history.Lists(state, uid) })
	for uid, growth := range h.kernel.Book(state) {
		if history.Lists(state, uid) {
			h.want[uid] = h.want[uid].Plus(growth)
		}
	}
	got := map[types.UID]traffic.Totals{}
	for _, account := range state.Status.Accounts {
		got[account.UID] = v1alpha1.TotalsOf(account.Counts)
	}
	for uid, want := range h.want {
		if got[uid] != want {
			h.Fatalf("the account of %s is %v, want %v", uid, packetsOf(got[uid]), packetsOf(want))
		}
	}
	h.Logf("  saved: %v", slices.Sorted(maps.Keys(got)))
}

// End implements history.Scenario: all that can be attached is, and the accounts are what was counted.
func (h *nodeHistory) End() {
	h.down, h.noDetach, h.kernel.Hidden = false, false, false
	for i := range h.kernel.Interfaces {
		if h.kernel.Interfaces[i].Hook.Program == 1 {
			h.kernel.Interfaces[i].Hook = plan.Hook{}
		}
	}
	if _, ok := h.state(); !ok {
		h.makeState()
	}
	for range 12 {
		history.DeliverAll(h.kernel.Cache, memapi.NodeStates)
		h.Clock.Step(time.Hour)
		h.pass()
	}
	state, _ := h.state()
	for _, i := range state.Status.Interfaces {
		if i.State != v1alpha1.InterfaceAttached && i.Reason != v1alpha1.ReasonModeConflict {
			h.Fatalf("in the end %s is %s: %s", i.Name, i.State, i.Message)
		}
	}
	for _, p := range h.kernel.Maps {
		if p.Counts != p.Booked || !p.Known {
			h.Fatalf("in the end map %d holds what is in no report", p.Map)
		}
	}
}
