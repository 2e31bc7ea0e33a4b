// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What can happen to a node's eth0. Each method leaves it as it says, whatever was before.

// AddData makes eth0 and wire0, connected and up, with the default route through eth0. AddNode does so at first.
func (n *Node) AddData() error {
	data := &netlink.Veth{LinkAttrs: attrs(dataName), PeerName: wireName, PeerNamespace: netlink.NsFd(n.Client.handle)}
	data.HardwareAddr, data.PeerHardwareAddr = hardwareAddr(n.dataAddress()), hardwareAddr(n.gateway())
	data.Namespace = netlink.NsFd(n.handle)
	if err := netlink.LinkAdd(data); err != nil {
		return fmt.Errorf("make %s: %w", dataName, err)
	}
	if err := n.SetDataUp(); err != nil {
		return err
	}
	return n.Client.Do(func() error {
		if _, err := quiet(wireName); err != nil {
			return err
		}
		return setUp(wireName)
	})
}

// AddPair makes one more veth pair between the node and the client's namespace, and sets both ends up. They have no address, and send
// nothing by themselves.
func (n *Node) AddPair(name, far string) error {
	pair := &netlink.Veth{LinkAttrs: attrs(name), PeerName: far, PeerNamespace: netlink.NsFd(n.Client.handle)}
	pair.Namespace = netlink.NsFd(n.handle)
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("make %s: %w", name, err)
	}
	up := func(name string) func() error {
		return func() error {
			if _, err := quiet(name); err != nil {
				return err
			}
			return setUp(name)
		}
	}
	return errors.Join(n.Do(up(name)), n.Client.Do(up(far)))
}

// DeleteData deletes eth0, and with it wire0.
func (n *Node) DeleteData() error {
	return n.withLink(dataName, netlink.LinkDel)
}

// SetDataDown sets eth0 down. The kernel takes the default route along, and wire0 has no carrier.
func (n *Node) SetDataDown() error {
	return n.withLink(dataName, netlink.LinkSetDown)
}

// SetDataUp sets eth0 up, with its address and the default route.
func (n *Node) SetDataUp() error {
	return n.Do(func() error {
		data, err := quiet(dataName)
		if err != nil {
			return err
		}
		if err := configure(data, netip.PrefixFrom(n.dataAddress(), 24)); err != nil {
			return err
		}
		return n.routeDefault(data)
	})
}

func (n *Node) routeDefault(data netlink.Link) error {
	route := &netlink.Route{LinkIndex: data.Attrs().Index, Gw: n.gateway().AsSlice()}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("lead the default route through %s: %w", dataName, err)
	}
	return nil
}

// DeleteDefaultRoute deletes the default route; SetDataUp makes it again.
func (n *Node) DeleteDefaultRoute() error {
	return n.withLink(dataName, func(data netlink.Link) error {
		return netlink.RouteDel(&netlink.Route{LinkIndex: data.Attrs().Index, Gw: n.gateway().AsSlice()})
	})
}

// RenameData renames eth0, or what it was renamed to, while it is up if the kernel allows that (6.2). A name other
// than eth0 is for a while only: the other methods do not find it.
func (n *Node) RenameData(name, to string) error {
	return n.withLink(name, func(data netlink.Link) error {
		err := netlink.LinkSetName(data, to)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if err := errors.Join(netlink.LinkSetDown(data), netlink.LinkSetName(data, to), netlink.LinkSetUp(data)); err != nil {
			return err
		}
		return n.routeDefault(data)
	})
}

// SetDataMTU gives both ends the MTU, in bytes.
func (n *Node) SetDataMTU(mtu int) error {
	set := func(link netlink.Link) error { return netlink.LinkSetMTU(link, mtu) }
	return errors.Join(n.withLink(dataName, set), n.Client.withLink(wireName, set))
}

// MoveDataAway moves eth0 into another network namespace, as a CNI plugin does that gives it to a pod, and sets it
// up there.
func (n *Node) MoveDataAway() (err error) {
	if n.pod == nil {
		pod, err := newNetns(n.Name + "-pod")
		if err != nil {
			return err
		}
		n.pod = pod
		if err := pod.quieten(); err != nil {
			return err
		}
	}
	err = n.withLink(dataName, func(data netlink.Link) error { return netlink.LinkSetNsFd(data, int(n.pod.handle)) })
	if err != nil {
		return err
	}
	return n.pod.withLink(dataName, netlink.LinkSetUp)
}

// MoveDataBack undoes MoveDataAway.
func (n *Node) MoveDataBack() error {
	err := n.pod.withLink(dataName, func(data netlink.Link) error { return netlink.LinkSetNsFd(data, int(n.handle)) })
	if err != nil {
		return err
	}
	return n.SetDataUp()
}

func (n *Node) removePod() error {
	if n.pod == nil {
		return nil
	}
	pod := n.pod
	n.pod = nil
	return errors.Join(pod.Kill(), pod.remove())
}

// withLink calls do in the namespace with the interface of that name.
func (n *Netns) withLink(name string, do func(netlink.Link) error) error {
	err := n.Do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return do(link)
	})
	if err != nil {
		return fmt.Errorf("change %s in %s: %w", name, n.Name, err)
	}
	return nil
}
