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

// deviceFacts is what can be seen of an interface, without changing anything, that makes drivers take or refuse a
// program. What cannot be found out is left zero.
type deviceFacts struct {
	MTU      int      `json:"mtu,omitempty"`
	Rx       uint32   `json:"rx,omitempty"` // queues that are in use
	Tx       uint32   `json:"tx,omitempty"`
	Combined uint32   `json:"combined,omitempty"`
	Most     uint32   `json:"most,omitempty"`     // combined queues that there can be
	Offloads []string `json:"offloads,omitempty"` // that are on and that some driver does not combine with XDP
	Announce announce `json:"announce,omitempty"`
	Members  []int    `json:"members,omitempty"` // of a bond, that have a program
}

// announce is what the driver tells of native XDP by the netlink family netdev (Linux 6.3); "" if it tells nothing.
type announce string

const (
	can    announce = "can"
	cannot announce = "cannot" // as things are: a bond without members says so too
)

// offloads are the features, by their names in ethtool, that make drivers of hardware refuse XDP (virtio_net, mlx5, gve,
// hv_netvsc). A virtual interface such as a bond has them for what is below it.
var offloads = []string{"rx-gro-hw", "rx-lro"}

// hardware is what netlink calls an interface of no kind of rtnetlink's.
const hardware = "device"

// look describes the interface.
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

// improved reports that native XDP, which was refused for the cause in the deviceFacts then, may be to be had now: what
// stood in its way has changed for the better, as far as it can be seen. Other changes are none: the kernel itself
// switches offloads off for generic mode. Nothing is tried out for that: to try costs frames.
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

// announced asks the family netdev (include/uapi/linux/netdev.h).
func announced(index int) announce {
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

// above returns the first interface above this one that has a program: the kernel then refuses any program below. A
// bridge, bond or VRF is its ports' master; a VLAN, macvlan or ipvlan names what it is on, and a veth its peer.
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
