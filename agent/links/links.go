// Package links lists and watches the interfaces of a network namespace by rtnetlink.
package links

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/agent/xdp"
)

// Links are the interfaces of the calling thread's network namespace: the host's, in an agent that has no namespace
// of its own. The zero value is ready to use.
type Links struct{}

// List returns all interfaces, up or down, in the kernel's order. Primary is told from the default routes: see primaries.
// Driver is "" where ethtool does not say. Errors wrap the errno of rtnetlink.
func (Links) List() ([]plan.Interface, error) {
	all, err := undisturbed(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	primary, err := undisturbed(primaries)
	if err != nil {
		return nil, fmt.Errorf("list default routes: %w", err)
	}
	// Any socket does for ethtool, and it is only a name for people.
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(socket)

	interfaces := make([]plan.Interface, 0, len(all))
	for _, l := range all {
		attrs := l.Attrs()
		parent, peerAway := linked(l)
		interfaces = append(interfaces, plan.Interface{
			Name:       attrs.Name,
			AltNames:   attrs.AltNames,
			Index:      attrs.Index,
			Kind:       kind(l),
			Driver:     driver(socket, attrs.Name),
			MTU:        attrs.MTU,
			Primary:    primary[attrs.Index],
			Hook:       xdp.HookOf(l),
			Master:     attrs.MasterIndex,
			Parent:     parent,
			PeerAway:   peerAway,
			NoEthernet: attrs.EncapType != "ether" && attrs.EncapType != "loopback",
		})
	}
	return interfaces, nil
}

// undisturbed repeats a listing that was disturbed by a change, which may miss or double entries. Where changes do
// not end it takes what it gets: every change also wakes the one who watches.
func undisturbed[T any](list func() (T, error)) (T, error) {
	var got T
	var err error
	for range 5 {
		if got, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return got, err
		}
	}
	return got, nil
}

// linked tells what IFLA_LINK means: the other end of a pair, or the interface upon which this one is made. An index
// of another network namespace (IFLA_LINK_NETNSID) is none of ours.
func linked(l netlink.Link) (parent int, peerAway bool) {
	away := l.Attrs().NetNsID >= 0
	switch kind(l) {
	case "veth", "netkit", "vxcan":
		return 0, away
	}
	if away {
		return 0, false
	}
	if v, ok := l.(*netlink.Vxlan); ok { // which says so in IFLA_VXLAN_LINK
		return v.VtepDevIndex, false
	}
	return l.Attrs().ParentIndex, false
}

// kind returns rtnetlink's kind; "device" is what package netlink says where there is none.
func kind(l netlink.Link) string {
	if k := l.Type(); k != "device" {
		return k
	}
	return ""
}

func driver(socket int, name string) string {
	info, err := unix.IoctlGetEthtoolDrvinfo(socket, name)
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.Driver[:])
}
