// SPDX-License-Identifier: Apache-2.0

// Package links lists and watches the interfaces of a network namespace, and those of its default routes, by rtnetlink.
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

// Links reads the interfaces of the calling thread's network namespace, which is the host's in an agent with hostNetwork. The
// zero value is ready to use.
type Links struct{}

// List returns all interfaces, up or down, in the kernel's order. It does not set Primary, because that needs the routes: see
// the method Primary. Driver is "" if ethtool does not return it. Errors wrap the errno of rtnetlink.
func (Links) List() ([]plan.Interface, error) {
	all, err := undisturbed(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	// ethtool works with any socket. The driver's name is only for messages.
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
			Hook:       xdp.HookOf(l),
			Master:     attrs.MasterIndex,
			Parent:     parent,
			PeerAway:   peerAway,
			NoEthernet: attrs.EncapType != "ether" && attrs.EncapType != "loopback",
		})
	}
	return interfaces, nil
}

// Primary returns the indexes of the interfaces of all default routes, IPv4 and IPv6. It reads all routes, which takes about
// half a second with a million of them; a Watcher keeps the result. Errors wrap the errno of rtnetlink.
func (Links) Primary() (map[int]bool, error) {
	routes, err := readDefaultRoutes()
	return routes.interfaces, err
}

// undisturbed repeats a listing that a change has interrupted, because entries may be missing or doubled. After five attempts it
// returns the last result: the watcher signals each change, so the interfaces are listed again.
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

// linked returns the meaning of IFLA_LINK: the other end of a pair, or the interface below this one. An index of another network
// namespace (IFLA_LINK_NETNSID) is ignored.
func linked(l netlink.Link) (parent int, peerAway bool) {
	away := l.Attrs().NetNsID >= 0
	switch kind(l) {
	case "veth", "netkit", "vxcan":
		return 0, away
	}
	if away {
		return 0, false
	}
	if v, ok := l.(*netlink.Vxlan); ok { // it has the interface in IFLA_VXLAN_LINK
		return v.VtepDevIndex, false
	}
	return l.Attrs().ParentIndex, false
}

// kind returns rtnetlink's kind, "" if there is none, for which package netlink returns "device".
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
