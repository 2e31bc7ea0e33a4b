// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// sentTraffic is the traffic to all nodes. In each tick, every node receives the same frames. It starts at zero.
type sentTraffic struct{ ticks atomic.Uint64 }

// frames are the frames that a node receives in a tick.
var frames = map[traffic.Class]traffic.Counts{
	traffic.IP(traffic.IPv4, 6):  {Packets: 81_234, Bytes: 98_765_432},
	traffic.IP(traffic.IPv4, 17): {Packets: 12_345, Bytes: 2_345_678},
	traffic.IP(traffic.IPv6, 6):  {Packets: 4_321, Bytes: 5_432_109},
	traffic.ClassARP:             {Packets: 3, Bytes: 126},
}

// arrived returns the frames that a node receives in the number of ticks.
func arrived(ticks uint64) (totals traffic.Totals) {
	for class, c := range frames {
		totals[class] = traffic.Counts{Packets: c.Packets * ticks, Bytes: c.Bytes * ticks}
	}
	return totals
}

// kernel simulates the kernel of a node with eth0 and lo. It implements Datapath and Links, and survives its agent.
type kernel struct {
	boot    string
	traffic *sentTraffic
	maps    uint32
	pins    []pin
}

type pin struct {
	plan.Attachment

	mode  plan.Mode
	since uint64 // the tick in which it was attached
}

// DecryptsTunnels implements agent.Links: there are none.
func (k *kernel) DecryptsTunnels() bool { return false }
func (k *kernel) HasSCTP() bool         { return false }

// List implements agent.Links.
func (k *kernel) List() ([]plan.Interface, error) {
	list := []plan.Interface{
		{Name: "lo", Index: 1, MTU: 65536, NoEthernet: true},
		{Name: "eth0", Index: 2, Driver: "virtio_net", MTU: 1500},
	}
	for i := range list {
		for _, p := range k.pins {
			if p.Index == list[i].Index {
				list[i].Hook = plan.Hook{Program: p.Program, Mode: p.mode}
			}
		}
	}
	return list, nil
}

// Primary implements agent.Links. The default route uses eth0.
func (k *kernel) Primary() (map[int]bool, error) { return map[int]bool{2: true}, nil }

// Attached implements agent.Datapath.
func (k *kernel) Attached() (list []plan.Attachment, _ error) {
	for _, p := range k.pins {
		list = append(list, p.Attachment)
	}
	return list, nil
}

// Attach implements agent.Datapath.
func (k *kernel) Attach(a plan.Attachment) error {
	if slices.ContainsFunc(k.pins, func(p pin) bool { return p.Index == a.Index }) {
		return plan.ErrPending
	}
	k.maps++
	k.pins = append(k.pins, pin{
		Attachment: plan.Attachment{Index: a.Index, Program: k.maps, Map: k.maps, Pin: strconv.Itoa(a.Index)},
		mode:       plan.Native, since: k.traffic.ticks.Load(),
	})
	return nil
}

// Detach implements agent.Datapath.
func (k *kernel) Detach(a plan.Attachment) error {
	k.pins = slices.DeleteFunc(k.pins, func(p pin) bool { return p.Pin == a.Pin })
	return nil
}

// NewestMap implements agent.Datapath.
func (k *kernel) CountsWireFrames() bool { return true }

func (k *kernel) NewestMap() (traffic.MapID, error) {
	k.maps++
	return traffic.MapID{Boot: k.boot, ID: k.maps}, nil
}

// Read implements agent.Datapath.
func (k *kernel) Read() (readings []traffic.Reading, _ error) {
	now := k.traffic.ticks.Load()
	for _, p := range k.pins {
		readings = append(readings, traffic.Reading{Map: traffic.MapID{Boot: k.boot, ID: p.Map}, Index: p.Index, Totals: arrived(now - p.since)})
	}
	return readings, nil
}
