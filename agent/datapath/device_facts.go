// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"slices"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/agent/xdp"
)

// deviceFacts are properties of an interface that make drivers accept or refuse an XDP program. Reading them changes nothing.
// A property that cannot be read is zero.
type deviceFacts struct {
	MTU      int          `json:"mtu,omitempty"`
	Rx       uint32       `json:"rx,omitempty"` // queues in use
	Tx       uint32       `json:"tx,omitempty"`
	Combined uint32       `json:"combined,omitempty"`
	Most     uint32       `json:"most,omitempty"`     // the maximum of combined queues
	Offloads []string     `json:"offloads,omitempty"` // enabled ones that conflict with XDP in some drivers
	Announce announcement `json:"announce,omitempty"`
	Members  []int        `json:"members,omitempty"` // indexes of the members of a bond that have a program
}

// announcement is whether the driver announces native XDP in the netlink family netdev (Linux 6.3); "" if that is not known.
type announcement string

const (
	can    announcement = "can"
	cannot announcement = "cannot" // in the present state of the device, for example a bond without members
)

// offloads are the features, by their names in ethtool, for which drivers of hardware refuse XDP (virtio_net, mlx5, gve,
// hv_netvsc). A virtual interface such as a bond only passes them on to the interfaces below it.
var offloads = []string{"rx-gro-hw", "rx-lro"}

// hardware is the type that package netlink returns for an interface without a kind.
const hardware = "device"

// readDeviceFacts returns the facts of the interface, the zero value if there is no such interface.
func readDeviceFacts(index int) deviceFacts {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return deviceFacts{}
	}
	s := deviceFacts{MTU: l.Attrs().MTU, Announce: announced(index)}
	if tool, err := ethtool.NewEthtool(); err == nil {
		defer tool.Close()
		if channels, err := tool.GetChannels(l.Attrs().Name); err == nil {
			s.Rx, s.Tx, s.Combined, s.Most = channels.RxCount, channels.TxCount, channels.CombinedCount, channels.MaxCombined
		}
		if features, err := tool.Features(l.Attrs().Name); err == nil && l.Type() == hardware {
			for _, name := range offloads {
				if features[name] {
					s.Offloads = append(s.Offloads, name)
				}
			}
		}
	}
	if _, bond := l.(*netlink.Bond); bond {
		all, _ := netlink.LinkList()
		for _, member := range all {
			if member.Attrs().MasterIndex == index && xdp.HookOf(member).Program != 0 {
				s.Members = append(s.Members, member.Attrs().Index)
			}
		}
	}
	return s
}

// improved reports whether native XDP may work now, after the driver refused it for the cause: a fact that is related to the
// cause has changed. Other changes do not count, because the kernel itself disables offloads for generic mode. The agent
// does not simply try native mode, because frames are not counted meanwhile.
func (then deviceFacts) improved(cause error, now deviceFacts) bool {
	smaller := now.MTU != 0 && now.MTU < then.MTU
	queues := now.MTU != 0 && (now.Rx != then.Rx || now.Tx != then.Tx || now.Combined != then.Combined)
	off := slices.ContainsFunc(then.Offloads, func(name string) bool { return !slices.Contains(now.Offloads, name) })
	freed := slices.ContainsFunc(then.Members, func(index int) bool { return !slices.Contains(now.Members, index) })
	switch {
	case errors.Is(cause, plan.ErrMTUTooLarge):
		return smaller
	case errors.Is(cause, plan.ErrNotEnoughQueues):
		return queues
	case errors.Is(cause, plan.ErrOffloadConflict):
		return off
	case errors.Is(cause, plan.ErrMemberHasProgram):
		return freed
	case errors.Is(cause, plan.ErrNativeUnsupported):
		return then.Announce == cannot && now.Announce == can
	default:
		return smaller || queues || freed
	}
}

// announced reads the device's XDP features from the family netdev (include/uapi/linux/netdev.h).
func announced(index int) announcement {
	const (
		devGet      = 1 // NETDEV_CMD_DEV_GET
		devIndex    = 1 // NETDEV_A_DEV_IFINDEX
		devFeatures = 3 // NETDEV_A_DEV_XDP_FEATURES
		basic       = 1 // NETDEV_XDP_ACT_BASIC
	)
	family, err := netlink.GenlFamilyGet("netdev")
	if err != nil {
		return ""
	}
	request := nl.NewNetlinkRequest(int(family.ID), 0)
	request.AddData(&nl.Genlmsg{Command: devGet, Version: nl.GENL_CTRL_VERSION})
	request.AddData(nl.NewRtAttr(devIndex, nl.Uint32Attr(uint32(index))))
	messages, err := request.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil || len(messages) != 1 || len(messages[0]) < nl.SizeofGenlmsg {
		return ""
	}
	attributes, err := nl.ParseRouteAttr(messages[0][nl.SizeofGenlmsg:])
	if err != nil {
		return ""
	}
	for _, a := range attributes {
		if a.Attr.Type&nl.NLA_TYPE_MASK == devFeatures && len(a.Value) == 8 {
			if nl.NativeEndian().Uint64(a.Value)&basic != 0 {
				return can
			}
			return cannot
		}
	}
	return ""
}

// upperWithProgram returns the first interface above this one that has a program, nil if there is none. If there is one, the
// kernel refuses any program below it. A bridge, bond or VRF is the master of its ports. The parent of a VLAN, macvlan or
// ipvlan is the interface below it; the parent of a veth is its peer, which is not below it.
func upperWithProgram(index int, all []netlink.Link) netlink.Link {
	seen := map[int]bool{}
	for todo := []int{index}; len(todo) > 0; todo = todo[1:] {
		if seen[todo[0]] {
			continue
		}
		seen[todo[0]] = true
		for _, l := range all {
			_, peer := l.(*netlink.Veth)
			master := slices.ContainsFunc(all, func(port netlink.Link) bool {
				return port.Attrs().Index == todo[0] && port.Attrs().MasterIndex == l.Attrs().Index
			})
			if !master && (peer || l.Attrs().ParentIndex != todo[0]) {
				continue
			}
			if xdp.HookOf(l).Program != 0 {
				return l
			}
			todo = append(todo, l.Attrs().Index)
		}
	}
	return nil
}
