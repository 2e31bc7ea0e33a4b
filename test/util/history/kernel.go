// SPDX-License-Identifier: Apache-2.0

package history

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/memapi"
)

// Kernel is the kernel of a node in memory: the agent's Datapath and Links, with a model of the accounts.
//
// The model knows the packets of each map since it was last booked and for which counters they are (docs/architecture.md):
// for those that selected the interface at that booking, or for those that did when an agent first read a new map.
type Kernel struct {
	*History

	Node       string
	Boot       string
	Interfaces []plan.Interface
	Maps       []*Map
	Hidden     bool          // the pins are not visible, and the maps count
	Cache      *memapi.Cache // of the agent that runs

	// Between is asked at each step of the agent. An error fails the step, if it can fail.
	Between func(point string) error
	// Attaching and Detaching, if set, check what the agent does. An error fails it.
	Attaching func() error
	Detaching func(*Map) error

	// Opened are the node states that have a report.
	Opened map[types.UID]bool

	lives      int       // agents so far
	nextID     uint32    // of maps
	blind      bool      // the agent that runs did not see the pins when it last listed the attachments
	reported   types.UID // the node state that was written last
	remembered types.UID // the node state whose ledger the agent that runs remembers
}

// Map is a map of the kernel with its pins, and what the model knows of it.
type Map struct {
	plan.Attachment

	Counts, Read, Booked traffic.Totals
	Known                bool        // it is in a report
	Counters             []types.UID // for which it counts since
	older                bool        // it existed when a node state had its first report, and that agent did not see it
	met                  int         // the agent that has read it of a node state that had a report, and remembers for which counters it counts
	metIn                types.UID
}

// StartAgent is called when an agent starts. It returns the agent's client.
func (k *Kernel) StartAgent() *memapi.Client {
	k.Cache, k.remembered = k.Server.NewCache(), ""
	k.lives++
	return &memapi.Client{Server: k.Server, Cache: k.Cache, Fault: func(point string) error {
		err := k.Between(point)
		if err == nil && point == "after update status" { // else the agent does not know that it was saved
			k.remembered = k.reported
		}
		return err
	}}
}

// Reboot removes all that a reboot removes.
func (k *Kernel) Reboot(boot string) {
	k.Boot, k.Maps, k.nextID = boot, nil, 0
	for i := range k.Interfaces {
		k.Interfaces[i].Hook = plan.Hook{}
	}
}

// Receive lets some packets arrive at each interface.
func (k *Kernel) Receive() {
	for _, i := range k.Interfaces {
		class := traffic.IP(traffic.IPv6, uint8(k.Random.IntN(4)))
		n := uint64(k.Random.IntN(4))
		for _, m := range k.Maps {
			if m.Live(i) {
				m.Counts[class] = m.Counts[class].Plus(traffic.Counts{Packets: n, Bytes: 70 * n})
			}
		}
	}
}

// RemoveInterface removes an interface, whose map stays.
func (k *Kernel) RemoveInterface(at int) {
	for _, m := range k.Maps {
		if m.Index == k.Interfaces[at].Index {
			m.Index = 0
		}
	}
	k.Interfaces = slices.Delete(k.Interfaces, at, at+1)
}

// List implements agent.Links.
func (k *Kernel) List() ([]plan.Interface, error) {
	if err := k.Between("before the interfaces are listed"); err != nil {
		return nil, err
	}
	return slices.Clone(k.Interfaces), nil
}

// Primary implements agent.Links.
func (k *Kernel) Primary() (map[int]bool, error) {
	if err := k.Between("before the routes are read"); err != nil {
		return nil, err
	}
	primary := map[int]bool{}
	for _, i := range k.Interfaces {
		primary[i.Index] = i.Primary
	}
	return primary, nil
}

// DecryptsTunnels implements agent.Links: there are none.
func (k *Kernel) DecryptsTunnels() bool { return false }

// HasSCTP implements agent.Links: it is not loaded.
func (k *Kernel) HasSCTP() bool { return false }

// Attached implements agent.Datapath.
func (k *Kernel) Attached() (list []plan.Attachment, _ error) {
	if err := k.Between("before the attachments are listed"); err != nil {
		return nil, err
	}
	if k.blind = k.Hidden; k.Hidden {
		return nil, plan.ErrBPFFSNotMounted
	}
	for _, m := range k.Maps {
		list = append(list, m.Attachment)
	}
	return list, nil
}

// CountsWireFrames implements agent.Datapath.
func (k *Kernel) CountsWireFrames() bool { return true }

// NewestMap implements agent.Datapath.
func (k *Kernel) NewestMap() (traffic.MapID, error) {
	if err := k.Between("before the newest map is asked for"); err != nil {
		return traffic.MapID{}, err
	}
	k.nextID++
	return traffic.MapID{Boot: k.Boot, ID: k.nextID}, nil
}

// Attach implements agent.Datapath.
func (k *Kernel) Attach(a plan.Attachment) error {
	if err := k.Between("before attach"); err != nil {
		return err
	}
	if k.Hidden {
		return plan.ErrBPFFSNotMounted
	}
	if k.Attaching != nil {
		if err := k.Attaching(); err != nil {
			return err
		}
	}
	pin := fmt.Sprint(a.Index)
	for _, m := range k.Maps {
		if m.Pin != pin {
			continue
		}
		if m.Index != a.Index {
			return plan.ErrPending
		}
		k.nextID++
		for i := range k.Interfaces {
			if m.Live(k.Interfaces[i]) {
				k.Interfaces[i].Hook.Program = k.nextID + 1000
			}
		}
		m.Program, m.Outdated = k.nextID+1000, false
		return nil
	}
	at := slices.IndexFunc(k.Interfaces, func(i plan.Interface) bool { return i.Index == a.Index })
	switch {
	case at < 0:
		return plan.ErrInterfaceGone
	case k.Interfaces[at].Hook.Program != 0:
		if k.Random.IntN(4) == 0 {
			k.Interfaces[at].Hook = plan.Hook{} // the other one goes
		}
		return plan.ErrHookInUse
	}
	mode := a.Mode
	if mode == plan.Auto {
		mode = plan.Native
	}
	k.nextID++
	k.Interfaces[at].Hook = plan.Hook{Program: k.nextID + 1000, Mode: mode}
	k.Maps = append(k.Maps, &Map{Attachment: plan.Attachment{Index: a.Index, Program: k.nextID + 1000, Map: k.nextID, Pin: pin}})
	k.Logf("  %s: attached %s with map %d", k.Node, a.Name, k.nextID)
	_ = k.Between("after attach") // it has succeeded
	return nil
}

// Detach implements agent.Datapath.
func (k *Kernel) Detach(a plan.Attachment) error {
	if err := k.Between("before detach"); err != nil {
		return err
	}
	if k.Hidden {
		return plan.ErrBPFFSNotMounted
	}
	at := slices.IndexFunc(k.Maps, func(m *Map) bool { return m.Pin == a.Pin })
	if k.Detaching != nil && at >= 0 {
		if err := k.Detaching(k.Maps[at]); err != nil {
			return err
		}
	}
	if at >= 0 {
		m := k.Maps[at]
		for i := range k.Interfaces {
			if m.Live(k.Interfaces[i]) {
				k.Interfaces[i].Hook = plan.Hook{}
			}
		}
		k.Logf("  %s: detached map %d", k.Node, m.Map)
		k.Maps = slices.Delete(k.Maps, at, at+1)
	}
	_ = k.Between("after detach") // it has succeeded
	return nil
}

// Read implements agent.Datapath.
func (k *Kernel) Read() (readings []traffic.Reading, _ error) {
	if err := k.Between("before read"); err != nil {
		return nil, err
	}
	if err := k.Between("after read"); err != nil { // the agent does not get what was read, so it does not know new maps
		return nil, err
	}
	if k.Hidden {
		return nil, plan.ErrBPFFSNotMounted
	}
	seen, ok := k.Seen()
	opened := ok && (seen.Status.ReportTime != nil || k.Remembers(seen))
	for _, m := range k.Maps {
		live := slices.ContainsFunc(k.Interfaces, m.Live)
		if opened && live && !m.Known && !m.older && (m.met != k.lives || m.metIn != seen.UID) {
			m.met, m.metIn, m.Counters = k.lives, seen.UID, k.selecting(seen.Spec.Counters, m)
			k.remembered = seen.UID
		}
		m.Read = m.Counts
		readings = append(readings, traffic.Reading{Map: traffic.MapID{Boot: k.Boot, ID: m.Map}, Index: m.Index, Totals: m.Counts})
	}
	return readings, nil
}

// Seen returns the node state as the agent's cache has it.
func (k *Kernel) Seen() (*v1alpha1.XDPNodeState, bool) {
	state := &v1alpha1.XDPNodeState{}
	cached := memapi.Client{Server: k.Server, Cache: k.Cache}
	err := cached.Get(context.Background(), types.NamespacedName{Name: k.Node}, state)
	return state, err == nil
}

// Remembers reports that the agent that runs has saved a report of this node state, or found a new map. Only what no
// agent remembers is lost when the status is emptied.
func (k *Kernel) Remembers(state *v1alpha1.XDPNodeState) bool { return k.remembered == state.UID }

// Book returns what a report of the node's agent books for each counter: what was read since the last one goes to those
// for which it was counted. A report without sight of the pins books nothing, and what it does not see is booked later.
func (k *Kernel) Book(state *v1alpha1.XDPNodeState) map[types.UID]traffic.Totals {
	first := !k.Opened[state.UID] // all its maps were booked in another node state
	k.Opened[state.UID], k.reported = true, state.UID
	grown := map[types.UID]traffic.Totals{}
	if k.blind {
		for _, m := range k.Maps {
			m.older = m.older || first
			m.Known = m.Known || m.met == k.lives && m.metIn == state.UID
		}
		return grown
	}
	for _, m := range k.Maps {
		now := k.selecting(state.Spec.Counters, m)
		switch {
		case m.Known:
		case m.met == k.lives && m.metIn == state.UID: // a counter that was never reported to have an account may be listed no more
			m.Counters = slices.DeleteFunc(m.Counters, func(uid types.UID) bool { return !Lists(state, uid) })
		default:
			m.Counters = now
		}
		for _, uid := range m.Counters {
			if !first && !m.older {
				grown[uid] = grown[uid].Plus(m.Read.Since(m.Booked))
			}
		}
		m.Booked, m.Known, m.older, m.Counters = m.Read, true, false, now
	}
	return grown
}

// Lists reports whether the spec of a node state has a counter.
func Lists(state *v1alpha1.XDPNodeState, uid types.UID) bool {
	return slices.ContainsFunc(state.Spec.Counters, func(c v1alpha1.NodeCounter) bool { return c.UID == uid })
}

// selecting returns which counters a map counts for.
func (k *Kernel) selecting(counters []v1alpha1.NodeCounter, m *Map) (uids []types.UID) {
	for _, i := range k.Interfaces {
		if !m.Live(i) {
			continue
		}
		mode := v1alpha1.AttachMode("")
		for _, c := range counters {
			if c.Inactive || !selects(c, i) || mode != "" && c.AttachMode != mode && c.AttachMode != "" {
				continue
			}
			mode = cmp.Or(mode, c.AttachMode, v1alpha1.AttachMode(i.Hook.Mode)) // Auto: what it has got
			uids = append(uids, c.UID)
		}
	}
	return uids
}

func selects(c v1alpha1.NodeCounter, i plan.Interface) bool {
	return c.Primary && i.Primary || slices.ContainsFunc(c.Names, func(pattern string) bool {
		matches, _ := path.Match(pattern, i.Name)
		return matches
	})
}
