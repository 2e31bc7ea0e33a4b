package histories

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/agent"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/memapi"
)

// kernel is the machine of a node with eth0, which is primary, and eth1. It is its agent's Datapath and Links.
type kernel struct {
	w     *world
	node  string
	boot  string
	agent *agent.Agent
	cache *memapi.Cache
	pins  []*pinned
	id    uint32

	reported   types.UID // the node state that was written last
	remembered types.UID // the node state whose ledger the agent remembers
}

// pinned is a map with its pins, and what the model knows of it.
type pinned struct {
	plan.Attachment

	mode                 plan.Mode
	counts, read, booked traffic.Totals
	known                bool         // it is in a report
	counters             []types.UID  // for whom it counts since
	met                  *agent.Agent // who has read it of a node state that had a report, and remembers for whom it counts
	metIn                types.UID
}

// receive lets some packets arrive at each interface that is counted.
func (k *kernel) receive(random *rand.Rand) {
	for _, p := range k.pins {
		n := uint64(random.IntN(3))
		class := traffic.IP(traffic.IPv4, uint8(random.IntN(3)))
		p.counts[class] = p.counts[class].Plus(traffic.Counts{Packets: n, Bytes: 90 * n})
	}
}

// book returns what a report of the node's agent books for each counter: what was read since the last one goes to those
// for whom it was counted.
func (k *kernel) book(state *v1alpha1.XDPNodeState) map[types.UID]traffic.Totals {
	first := !k.w.opened[state.UID] // all its maps were booked in another node state
	k.w.opened[state.UID] = true
	k.reported = state.UID
	grown := map[types.UID]traffic.Totals{}
	for _, p := range k.pins {
		selecting := selecting(state.Spec.Counters, p)
		switch {
		case p.known:
		case p.met == k.agent && p.metIn == state.UID: // a counter that was never reported to have an account may be listed no more
			p.counters = slices.DeleteFunc(p.counters, func(uid types.UID) bool {
				return !slices.ContainsFunc(state.Spec.Counters, func(c v1alpha1.NodeCounter) bool { return c.UID == uid })
			})
		default:
			p.counters = selecting
		}
		for _, uid := range p.counters {
			if !first {
				grown[uid] = grown[uid].Plus(p.read.Since(p.booked))
			}
		}
		p.booked, p.known, p.counters = p.read, true, selecting
	}
	return grown
}

// selecting returns which counters a map counts for.
func selecting(counters []v1alpha1.NodeCounter, p *pinned) (selecting []types.UID) {
	mode := v1alpha1.AttachMode("")
	for _, c := range counters {
		selects := !c.Inactive && (c.Primary && p.Name == "eth0" || len(c.Names) > 0)
		switch {
		case !selects || mode != "" && c.AttachMode != mode && c.AttachMode != "":
			continue
		case mode == "" && c.AttachMode == "": // Auto
			mode = v1alpha1.AttachMode(p.mode) // what it has got
		case mode == "":
			mode = c.AttachMode
		}
		selecting = append(selecting, c.UID)
	}
	return selecting
}

// List implements agent.Links.
func (k *kernel) List() ([]plan.Interface, error) {
	if err := k.w.between("before the interfaces are listed"); err != nil {
		return nil, err
	}
	list := []plan.Interface{{Name: "eth0", Index: 2, MTU: 1500, Primary: true}, {Name: "eth1", Index: 3, MTU: 1500}}
	for i := range list {
		for _, p := range k.pins {
			if p.Index == list[i].Index {
				list[i].Hook = plan.Hook{Program: p.Program, Mode: p.mode}
			}
		}
	}
	return list, nil
}

// Attached implements agent.Datapath.
func (k *kernel) Attached() (list []plan.Attachment, _ error) {
	for _, p := range k.pins {
		fact := p.Attachment
		fact.Name = ""
		list = append(list, fact)
	}
	return list, nil
}

// Attach implements agent.Datapath.
func (k *kernel) Attach(a plan.Attachment) error {
	if err := k.w.between("before attach"); err != nil {
		return err
	}
	if slices.ContainsFunc(k.pins, func(p *pinned) bool { return p.Index == a.Index }) {
		return plan.ErrPending
	}
	k.id++
	mode := a.Mode
	if mode == plan.Auto {
		mode = plan.Native
	}
	k.pins = append(k.pins, &pinned{mode: mode, Attachment: plan.Attachment{Index: a.Index, Name: a.Name, Program: k.id, Map: k.id, Pin: fmt.Sprint(a.Index)}})
	k.w.logf("  %s/%s attached with map %d", k.node, a.Name, k.id)
	_ = k.w.between("after attach")
	return nil
}

// Detach implements agent.Datapath.
func (k *kernel) Detach(a plan.Attachment) error {
	if err := k.w.between("before detach"); err != nil {
		return err
	}
	k.pins = slices.DeleteFunc(k.pins, func(p *pinned) bool { return p.Pin == a.Pin })
	k.w.logf("  %s/%s detached", k.node, a.Pin)
	_ = k.w.between("after detach")
	return nil
}

// Read implements agent.Datapath.
func (k *kernel) Read() (readings []traffic.Reading, _ error) {
	if err := k.w.between("before read"); err != nil {
		return nil, err
	}
	seen := &v1alpha1.XDPNodeState{}
	opened := k.agent.Client.Get(context.Background(), types.NamespacedName{Name: k.node}, seen) == nil &&
		(seen.Status.ReportTime != nil || k.remembered == seen.UID)
	for _, p := range k.pins {
		if opened && !p.known && (p.met != k.agent || p.metIn != seen.UID) {
			p.met, p.metIn, p.counters = k.agent, seen.UID, selecting(seen.Spec.Counters, p)
			k.remembered = seen.UID
		}
		p.read = p.counts
		readings = append(readings, traffic.Reading{Map: traffic.MapID{Boot: k.boot, ID: p.Map}, Index: p.Index, Totals: p.counts})
	}
	return readings, nil
}
