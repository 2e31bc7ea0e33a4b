package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/memapi"
)

// Random histories of one node: what its kernel, its interfaces, its users and its API server may do, at any step of a
// pass, and an agent that is killed at any of them. In each version of its node state the accounts are what a model
// says that counts packets where they arrive, no account falls, and no map is given up whose counts are not saved.
//
// The model knows the packets of each map since it was last booked and for whom they are (docs/architecture.md): for
// those that selected the interface at that booking, or for those that did when an agent first read a new map.
func TestRandomHistoriesOfANodeKeepEveryAccount(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for history := range 1000 {
		h := newHistory(t, rand.New(rand.NewPCG(seed, uint64(history))), fmt.Sprintf("history %d of seed %d", history, seed))
		for range 60 {
			h.event()
			h.pass()
		}
		h.end()
	}
}

// history is a node and what the model knows of it. It is the agent's Datapath and Links.
type history struct {
	t      *testing.T
	name   string
	random *rand.Rand
	clock  *testclock.FakeClock
	log    []string

	server *memapi.Server
	live   *memapi.Client // of users
	cache  *memapi.Cache
	agent  *Agent
	down   bool // the API server is away

	boot       int
	interfaces []plan.Interface
	pins       []*pinned
	nextID     uint32
	nextIndex  int
	noDetach   bool
	inPass     bool
	editing    bool // it is not the agent that writes
	emptied    bool // the status, by hand, and not written since
	still      bool // nothing happens between the steps of a pass
	calls      int  // until the agent is killed, if positive

	opened types.UID                 // of the node state that has a report
	want   map[string]traffic.Totals // its accounts
}

// pinned is a map of the kernel with its pins, and what the model knows of it.
type pinned struct {
	plan.Attachment

	counts, read, booked traffic.Totals
	known                bool     // it is in a report
	counters             []string // for whom it counts since
	met                  *Agent   // the agent that has read it of a node state that had a report, and remembers for whom it counts
	metIn                types.UID
}

type killed struct{}

func newHistory(t *testing.T, random *rand.Rand, name string) *history {
	h := &history{t: t, name: name, random: random, clock: testclock.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), nextIndex: 1}
	h.server = memapi.New(h.clock.Now)
	h.live = &memapi.Client{Server: h.server}
	h.server.Written = h.written
	h.addInterface("eth0")
	h.addInterface("eth1")
	h.makeState()
	h.startAgent()
	return h
}

func (h *history) fatalf(format string, args ...any) {
	h.t.Helper()
	h.t.Fatalf("%s: %s\nafter\n%s", h.name, fmt.Sprintf(format, args...), strings.Join(h.log, "\n"))
}

func (h *history) logf(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

func (h *history) startAgent() {
	h.cache = h.server.NewCache()
	h.agent = &Agent{
		Client: &memapi.Client{Server: h.server, Cache: h.cache, Fault: h.fault}, Node: "n1",
		Info: v1alpha1.AgentInfo{BootID: h.bootID()}, Datapath: h, Links: h, Clock: h.clock,
	}
}

func (h *history) bootID() string { return fmt.Sprint("boot", h.boot) }

// fault is asked at each call of the agent to the API server.
func (h *history) fault(point string) error {
	h.between(point)
	if h.down {
		return errAPIDown
	}
	return nil
}

// between is asked at each step of the agent: packets arrive, users act, and it may be killed.
func (h *history) between(point string) {
	if !h.inPass || h.still {
		return
	}
	h.receive()
	if h.random.IntN(30) == 0 {
		h.logf("  %s:", point)
		h.edit()
	}
	if h.calls--; h.calls == 0 {
		h.logf("  the agent is killed %s", point)
		panic(killed{})
	}
}

func (h *history) pass() {
	h.inPass = true
	defer func() {
		h.inPass = false
		switch e := recover().(type) {
		case nil:
		case killed:
			h.startAgent()
		default:
			panic(e)
		}
	}()
	_, err := h.agent.Reconcile(context.Background(), ctrl.Request{})
	if err != nil && !h.down && !h.noDetach {
		h.fatalf("%v", err)
	}
}

func (h *history) event() {
	h.clock.Step(time.Duration(h.random.IntN(15)) * time.Second)
	h.calls = 0
	some := []string{"eth0", "eth1"}[h.random.IntN(2)]
	at := slices.IndexFunc(h.interfaces, func(i plan.Interface) bool { return i.Name == some })
	switch h.random.IntN(20) {
	case 0, 1, 2:
		h.edit()
	case 3, 4, 5:
		h.cache.Next(memapi.NodeStates)
	case 6:
		h.calls = 1 + h.random.IntN(14)
	case 7:
		h.logf("the agent starts anew")
		h.startAgent()
	case 8:
		if h.random.IntN(3) == 0 {
			h.reboot()
		}
	case 9:
		h.down = !h.down
		h.logf("the API server is away: %v", h.down)
	case 10:
		h.noDetach = !h.noDetach
		h.logf("nothing can be detached: %v", h.noDetach)
	case 11:
		if at >= 0 {
			h.logf("%s is gone", some)
			h.removeInterface(at)
		}
	case 12:
		if at < 0 {
			if h.random.IntN(2) == 0 {
				h.nextIndex = 1 // an index that was used before
			}
			h.addInterface(some)
		}
	case 13: // both names change places, or one
		if len(h.interfaces) > 0 {
			for i := range h.interfaces {
				h.interfaces[i].Name = map[string]string{"eth0": "eth1", "eth1": "eth0"}[h.interfaces[i].Name]
			}
			h.logf("renamed: %v", h.interfaces)
		}
	case 14:
		if at >= 0 {
			h.interfaces[at].MTU = 1500 + h.random.IntN(2)*7500
			h.logf("the MTU of %s is %d", some, h.interfaces[at].MTU)
		}
	case 15:
		if at >= 0 {
			h.logf("the link of %s is cut", some)
			h.interfaces[at].Hook = plan.Hook{}
		}
	case 16:
		if at >= 0 {
			h.logf("another program holds the hook of %s", some)
			h.interfaces[at].Hook = plan.Hook{Program: 1, Mode: plan.Native}
		}
	case 17:
		for _, p := range h.pins {
			p.Outdated = true
		}
	}
	h.receive()
}

// edit is what users and the controller do to the node state.
func (h *history) edit() {
	h.editing = true
	defer func() { h.editing = false }()
	state, ok := h.state()
	if !ok {
		if h.random.IntN(2) == 0 {
			h.makeState()
		}
		return
	}
	switch h.random.IntN(16) {
	case 0:
		h.logf("the node state is deleted")
		h.must(h.live.Delete(context.Background(), state))
	case 1:
		h.logf("the node state is made anew")
		h.must(h.live.Delete(context.Background(), state))
		h.makeState()
	case 2:
		h.logf("the status of the node state is emptied by hand")
		h.emptied = true
		state.Status = v1alpha1.XDPNodeStateStatus{}
		h.must(h.live.Status().Update(context.Background(), state))
	default:
		state.Spec.Counters = h.counters(state.Spec.Counters)
		h.must(h.live.Update(context.Background(), state))
		h.logf("the spec is %v", h.told())
	}
}

// counters returns another version of the counters of a node: one comes, goes, is edited, suspended or resumed.
func (h *history) counters(list []v1alpha1.NodeCounter) []v1alpha1.NodeCounter {
	uid := []string{"a", "b", "c"}[h.random.IntN(3)]
	at := slices.IndexFunc(list, func(c v1alpha1.NodeCounter) bool { return c.Name == uid })
	c := counter(uid)
	c.Primary = false
	c.Names = [][]string{{"eth0"}, {"eth1"}, {"eth0", "eth1"}, {"none"}}[h.random.IntN(4)]
	c.AttachMode = []v1alpha1.AttachMode{"", "", "", "Native", "Generic"}[h.random.IntN(5)]
	c.Inactive = h.random.IntN(4) == 0
	switch {
	case at < 0:
		list = append(list, c)
	case h.random.IntN(6) == 0:
		list = slices.Delete(list, at, at+1)
	default:
		list[at] = c
	}
	slices.SortFunc(list, func(a, b v1alpha1.NodeCounter) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func (h *history) told() (told []string) {
	state, _ := h.state()
	for _, c := range state.Spec.Counters {
		told = append(told, fmt.Sprint(c.Name, !c.Inactive, c.Names, c.AttachMode))
	}
	return told
}

func (h *history) state() (*v1alpha1.XDPNodeState, bool) {
	state := &v1alpha1.XDPNodeState{}
	err := h.live.Get(context.Background(), types.NamespacedName{Name: "n1"}, state)
	return state, err == nil
}

func (h *history) makeState() {
	state := &v1alpha1.XDPNodeState{}
	state.Name = "n1"
	state.Spec.ReportInterval.Duration = 10 * time.Second
	all := counter("a")
	all.Primary, all.Names = false, []string{"eth0", "eth1"}
	state.Spec.Counters = []v1alpha1.NodeCounter{all}
	h.must(h.live.Create(context.Background(), state))
	h.logf("a node state is made: %s %v", state.UID, h.told())
}

func (h *history) must(err error) {
	h.t.Helper()
	if err != nil {
		h.fatalf("%v", err)
	}
}

// The kernel.

func (h *history) addInterface(name string) {
	for slices.ContainsFunc(h.interfaces, func(i plan.Interface) bool { return i.Index == h.nextIndex }) {
		h.nextIndex++
	}
	h.interfaces = append(h.interfaces, plan.Interface{Name: name, Index: h.nextIndex, MTU: 1500})
	h.logf("there is %s with index %d", name, h.nextIndex)
	h.nextIndex++
}

func (h *history) removeInterface(at int) {
	for _, p := range h.pins {
		if p.Index == h.interfaces[at].Index {
			p.Index = 0
		}
	}
	h.interfaces = slices.Delete(h.interfaces, at, at+1)
}

func (h *history) reboot() {
	h.logf("reboot")
	h.boot++
	h.pins, h.nextID = nil, 0
	for i := range h.interfaces {
		h.interfaces[i].Hook = plan.Hook{}
	}
	h.startAgent()
}

// receive lets some packets arrive at each interface.
func (h *history) receive() {
	for _, i := range h.interfaces {
		class := traffic.IP(traffic.IPv6, uint8(h.random.IntN(4)))
		n := uint64(h.random.IntN(4))
		for _, p := range h.pins {
			if p.Live(i) {
				p.counts[class] = p.counts[class].Plus(traffic.Counts{Packets: n, Bytes: 70 * n})
			}
		}
	}
}

// List implements Links.
func (h *history) List() ([]plan.Interface, error) {
	h.between("before the interfaces are listed")
	return slices.Clone(h.interfaces), nil
}

// Attached implements Datapath.
func (h *history) Attached() (list []plan.Attachment, _ error) {
	h.between("before the attachments are listed")
	for _, p := range h.pins {
		list = append(list, p.Attachment)
	}
	return list, nil
}

// Attach implements Datapath.
func (h *history) Attach(a plan.Attachment) error {
	h.between("before attach")
	seen := &v1alpha1.XDPNodeState{}
	if h.agent.Client.Get(context.Background(), types.NamespacedName{Name: "n1"}, seen) != nil || seen.Status.ReportTime == nil && !h.remembers(seen) {
		h.fatalf("attached before the node state had a report: what the map counts would be nobody's")
	}
	pin := fmt.Sprint(a.Index)
	for _, p := range h.pins {
		if p.Pin != pin {
			continue
		}
		if p.Index != a.Index {
			return plan.ErrPending
		}
		h.nextID++
		for i := range h.interfaces {
			if p.Live(h.interfaces[i]) {
				h.interfaces[i].Hook.Program = h.nextID + 1000
			}
		}
		p.Program, p.Outdated = h.nextID+1000, false
		return nil
	}
	at := slices.IndexFunc(h.interfaces, func(i plan.Interface) bool { return i.Index == a.Index })
	switch {
	case at < 0:
		return plan.ErrInterfaceGone
	case h.interfaces[at].Hook.Program != 0:
		if h.random.IntN(4) == 0 {
			h.interfaces[at].Hook = plan.Hook{} // the other one goes
		}
		return plan.ErrHookInUse
	}
	mode := a.Mode
	if mode == plan.Auto {
		mode = plan.Native
	}
	h.nextID++
	h.interfaces[at].Hook = plan.Hook{Program: h.nextID + 1000, Mode: mode}
	h.pins = append(h.pins, &pinned{Attachment: plan.Attachment{Index: a.Index, Program: h.nextID + 1000, Map: h.nextID, Pin: pin}})
	h.logf("  attached %s with map %d", a.Name, h.nextID)
	h.between("after attach")
	return nil
}

// Detach implements Datapath. What was read of a map has to be saved by now, unless the node state is gone or was made
// anew.
func (h *history) Detach(a plan.Attachment) error {
	h.between("before detach")
	if h.noDetach {
		return errors.New("no")
	}
	for _, p := range h.pins {
		if p.Pin != a.Pin {
			continue
		}
		if state, ok := h.state(); ok && h.opened == state.UID && len(p.counters) > 0 && p.read != p.booked && h.seesState() {
			h.fatalf("map %d is given up with counts that are read and not saved", p.Map)
		}
		for i := range h.interfaces {
			if p.Live(h.interfaces[i]) {
				h.interfaces[i].Hook = plan.Hook{}
			}
		}
		h.logf("  detached map %d", p.Map)
	}
	h.pins = slices.DeleteFunc(h.pins, func(p *pinned) bool { return p.Pin == a.Pin })
	h.between("after detach")
	return nil
}

// seesState reports whether the agent knows that there is a node state.
func (h *history) seesState() bool {
	return h.agent.Client.Get(context.Background(), types.NamespacedName{Name: "n1"}, &v1alpha1.XDPNodeState{}) == nil
}

// Read implements Datapath.
func (h *history) Read() (readings []traffic.Reading, _ error) {
	h.between("before read")
	seen := &v1alpha1.XDPNodeState{}
	opened := h.agent.Client.Get(context.Background(), types.NamespacedName{Name: "n1"}, seen) == nil && (seen.Status.ReportTime != nil || h.remembers(seen))
	for _, p := range h.pins {
		live := slices.ContainsFunc(h.interfaces, p.Live)
		if opened && live && !p.known && (p.met != h.agent || p.metIn != seen.UID) {
			p.met, p.metIn, p.counters = h.agent, seen.UID, h.selecting(seen.Spec.Counters, p)
		}
		p.read = p.counts
		readings = append(readings, traffic.Reading{Map: traffic.MapID{Boot: h.bootID(), ID: p.Map}, Index: p.Index, Totals: p.counts})
	}
	h.between("after read")
	return readings, nil
}

// The model.

func packetsOf(t traffic.Totals) int64 { return int64(t.Sum().Packets) }

// remembers reports that the agent has saved a report of this node state in its present life, or found a new map. Only what no agent
// remembers is lost when the status is emptied.
func (h *history) remembers(state *v1alpha1.XDPNodeState) bool {
	return h.agent.last.state == state.UID
}

// written sees each version of the node state. A report books what was read.
func (h *history) written(change memapi.Change) {
	state, ok := change.New.(*v1alpha1.XDPNodeState)
	if !ok || h.editing || !h.inPass {
		return
	}
	first := h.opened != state.UID || h.emptied && !h.remembers(state)
	h.emptied = false
	if first {
		h.opened, h.want = state.UID, map[string]traffic.Totals{}
	}
	for uid := range h.want {
		if !slices.ContainsFunc(state.Spec.Counters, func(c v1alpha1.NodeCounter) bool { return c.Name == uid }) {
			delete(h.want, uid)
		}
	}
	for _, p := range h.pins {
		now := h.selecting(state.Spec.Counters, p)
		switch {
		case first || p.known || p.met == h.agent && p.metIn == state.UID:
		default:
			p.counters = now
		}
		if !first {
			for _, uid := range p.counters {
				if slices.ContainsFunc(state.Spec.Counters, func(c v1alpha1.NodeCounter) bool { return c.Name == uid }) {
					h.want[uid] = h.want[uid].Plus(p.read.Since(p.booked))
				}
			}
		}
		p.booked, p.known, p.counters = p.read, true, now
	}
	got := map[string]traffic.Totals{}
	for _, account := range state.Status.Accounts {
		got[string(account.UID)] = v1alpha1.TotalsOf(account.Counts)
	}
	for uid, want := range h.want {
		if got[uid] != want {
			h.fatalf("the account of %s is %v, want %v", uid, packetsOf(got[uid]), packetsOf(want))
		}
	}
	h.logf("  saved: %v", slices.Sorted(maps.Keys(got)))
}

// selecting returns which counters a map counts for.
func (h *history) selecting(counters []v1alpha1.NodeCounter, p *pinned) (uids []string) {
	for _, i := range h.interfaces {
		mode := v1alpha1.AttachMode("")
		for _, c := range counters {
			if !p.Live(i) || c.Inactive || !slices.Contains(c.Names, i.Name) {
				continue
			}
			agree := mode == "" || c.AttachMode == mode || c.AttachMode == ""
			if mode == "" {
				mode = cmp.Or(c.AttachMode, v1alpha1.AttachMode(i.Hook.Mode)) // Auto: what it has got
			}
			if agree {
				uids = append(uids, c.Name)
			}
		}
	}
	return uids
}

// end lets everything come to rest: all that can be attached is, and the accounts are what was counted.
func (h *history) end() {
	h.logf("the end: everything comes to rest")
	h.down, h.noDetach, h.calls = false, false, 0
	for i := range h.interfaces {
		if h.interfaces[i].Hook.Program == 1 {
			h.interfaces[i].Hook = plan.Hook{}
		}
	}
	if _, ok := h.state(); !ok {
		h.makeState()
	}
	h.random = rand.New(rand.NewPCG(0, 0))
	h.still = true
	for range 12 {
		for {
			if _, more := h.cache.Next(memapi.NodeStates); !more {
				break
			}
		}
		h.clock.Step(time.Hour)
		h.pass()
	}
	state, _ := h.state()
	for _, i := range state.Status.Interfaces {
		if i.State != v1alpha1.InterfaceAttached && i.Reason != v1alpha1.ReasonModeConflict {
			h.fatalf("in the end %s is %s: %s", i.Name, i.State, i.Message)
		}
	}
	for _, p := range h.pins {
		if p.counts != p.booked || !p.known {
			h.fatalf("in the end map %d holds what is in no report", p.Map)
		}
	}
}
