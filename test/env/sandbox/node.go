// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// FabricAddress is the address of the sandbox's own network namespace on the bridge, the one for an API server.
const FabricAddress = "10.77.0.1"

// maxNodes is how many addresses the network of the bridge has for nodes.
const maxNodes = 244

// Names of interfaces.
const (
	fabricName = "fabric0" // the bridge, in the sandbox's own network namespace
	mgmtName   = "mgmt0"   // in a node, to the bridge
	dataName   = "eth0"    // in a node, to the client
	wireName   = "wire0"   // in the client, to the node's dataName
)

// Fabric connects nodes, each a network namespace, with the sandbox's own network namespace by a bridge:
//
//	sandbox           node "n1"                              its client
//	fabric0 --------- mgmt0 10.77.0.11/24
//	10.77.0.1/24      eth0 10.78.1.1/24, default route ----- wire0
//	   |              bpffs: <dir>/n1/bpffs
//	   '------------- node "n2" ...
type Fabric struct {
	dir    string
	bridge *netlink.Bridge

	mu    sync.Mutex
	nodes map[int]*Node // by the last part of their addresses, less 10
}

// Node is a network namespace that stands for the host network of a node. Do and Command run something in it; but for
// the network and BPFFS that shares all with the sandbox, file systems and processes too. IPv6 is off on every
// interface, also on those made later, until disable_ipv6 of the interface is set to 0.
type Node struct {
	*Netns
	// Client is the namespace at the other end of eth0. What is sent on its wire0 arrives at eth0, and nothing
	// else does: neither end speaks by itself (no ARP, no IPv6).
	Client *Netns
	// Address is that of mgmt0, by which the node and the sandbox reach each other.
	Address netip.Addr
	// BPFFS is the mount point of the node's own BPF file system. What is pinned there goes with the node.
	BPFFS string

	fabric *Fabric
	dir    string // holds BPFFS
	index  int
	boots  int    // how often it was switched on again
	pod    *Netns // where eth0 may be moved to; nil until it was
}

// NewFabric makes the bridge. dir gets a folder per node; it must exist.
func (s *Sandbox) NewFabric(dir string) (*Fabric, error) {
	// A method although it needs nothing of s: who has one is in a sandbox, and not on the machine's own network.
	f := &Fabric{dir: dir, nodes: map[int]*Node{}, bridge: &netlink.Bridge{LinkAttrs: attrs(fabricName)}}
	// By default a bridge takes over the address of one of its ports, and another one when that port goes: the
	// other nodes would not reach it until their ARP entries are stale.
	f.bridge.HardwareAddr = hardwareAddr(netip.MustParseAddr(FabricAddress))
	if err := netlink.LinkAdd(f.bridge); err != nil {
		return nil, fmt.Errorf("make the bridge %s: %w", fabricName, err)
	}
	if err := configure(f.bridge, netip.PrefixFrom(netip.MustParseAddr(FabricAddress), 24)); err != nil {
		return nil, errors.Join(err, netlink.LinkDel(f.bridge))
	}
	return f, nil
}

// hardwareAddr returns the Ethernet address, locally administered, of the interface with an IPv4 address. A node
// that is removed and made again keeps it, so that no ARP entry for it goes wrong.
func hardwareAddr(address netip.Addr) net.HardwareAddr {
	return append(net.HardwareAddr{2, 0}, address.AsSlice()...)
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// configure gives a link of this thread's network namespace an address and sets it up.
func configure(link netlink.Link, address netip.Prefix) error {
	name := link.Attrs().Name
	err := netlink.AddrReplace(link, &netlink.Addr{IPNet: &net.IPNet{
		IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), address.Addr().BitLen()),
	}})
	if err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, address, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// Remove removes all nodes and the bridge.
func (f *Fabric) Remove() error {
	f.mu.Lock()
	var nodes []*Node
	for _, node := range f.nodes {
		nodes = append(nodes, node)
	}
	f.mu.Unlock()
	var errs []error
	for _, node := range nodes {
		errs = append(errs, node.Remove())
	}
	if err := netlink.LinkDel(f.bridge); err != nil {
		errs = append(errs, fmt.Errorf("remove the bridge %s: %w", fabricName, err))
	}
	return errors.Join(errs...)
}

// AddNode makes a node. Its name is that of its network namespace, and with "-client" that of its client's.
// It gets the lowest address that is free: the first one 10.77.0.11.
func (f *Fabric) AddNode(name string) (_ *Node, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("add node %s: %w", name, err)
		}
	}()
	n := &Node{fabric: f, dir: filepath.Join(f.dir, name)}
	n.BPFFS = filepath.Join(n.dir, "bpffs")
	if err := f.take(n); err != nil {
		return nil, err
	}
	n.Address = netip.AddrFrom4([4]byte{10, 77, 0, byte(10 + n.index)})
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Remove())
		}
	}()
	if n.Netns, err = newNetns(name); err != nil {
		return nil, err
	}
	if n.Client, err = newNetns(name + "-client"); err != nil {
		return nil, err
	}
	for _, step := range []func() error{n.quieten, n.addMgmt, n.setUpMgmt, n.AddData, n.mountBPFFS} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// take gives n the lowest index that is free, from 1.
func (f *Fabric) take(n *Node) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n.index = 1; n.index <= maxNodes; n.index++ {
		if f.nodes[n.index] == nil {
			f.nodes[n.index] = n
			return nil
		}
	}
	return fmt.Errorf("there are %d nodes already", maxNodes)
}

// quieten keeps IPv6 from speaking on the interfaces between node and client, before they are there: they would
// send neighbour and router solicitations and multicast reports as soon as they are up.
func (n *Node) quieten() error {
	return errors.Join(n.Netns.quieten(), n.Client.quieten())
}

func (n *Netns) quieten() error {
	err := n.Do(func() error {
		// /proc/sys/net is that of the network namespace of the thread that opens it.
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	})
	// A kernel without IPv6 is quiet already.
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("disable IPv6 in %s: %w", n.Name, err)
	}
	return nil
}

// addMgmt makes the veth pair to the bridge.
func (n *Node) addMgmt() error {
	mgmt := &netlink.Veth{LinkAttrs: attrs(n.port()), PeerName: mgmtName, PeerNamespace: netlink.NsFd(n.handle)}
	mgmt.PeerHardwareAddr = hardwareAddr(n.Address)
	mgmt.MasterIndex = n.fabric.bridge.Index
	if err := netlink.LinkAdd(mgmt); err != nil {
		return fmt.Errorf("make %s: %w", mgmtName, err)
	}
	if err := netlink.LinkSetUp(mgmt); err != nil {
		return fmt.Errorf("set %s up: %w", n.port(), err)
	}
	return nil
}

// port returns the name of the bridge's end of mgmt0.
func (n *Node) port() string {
	return fmt.Sprintf("port%d", n.index)
}

// dataAddress returns the address of eth0.
func (n *Node) dataAddress() netip.Addr {
	return netip.AddrFrom4([4]byte{10, 78, byte(n.index), 1})
}

// gateway returns the address that the default route leads to. No interface has it; without ARP nobody asks.
func (n *Node) gateway() netip.Addr {
	return netip.AddrFrom4([4]byte{10, 78, byte(n.index), 254})
}

// setUpMgmt sets lo of both namespaces and mgmt0 up.
func (n *Node) setUpMgmt() error {
	if err := n.Client.Do(func() error { return setUp("lo") }); err != nil {
		return err
	}
	return n.Do(func() error {
		if err := setUp("lo"); err != nil {
			return err
		}
		mgmt, err := netlink.LinkByName(mgmtName)
		if err != nil {
			return fmt.Errorf("find %s: %w", mgmtName, err)
		}
		return configure(mgmt, netip.PrefixFrom(n.Address, 24))
	})
}

func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// quiet returns the interface of that name after switching ARP off and GRO on. Without GRO a veth has no NAPI,
// and then refuses the frames that XDP of its peer sends or redirects to it.
func quiet(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetARPOff(link)
	}
	if err != nil {
		return nil, fmt.Errorf("switch ARP off on %s: %w", name, err)
	}
	if err := enableGRO(name); err != nil {
		return nil, fmt.Errorf("switch GRO on on %s: %w", name, err)
	}
	return link, nil
}

// enableGRO is "ethtool -K NAME gro on".
func enableGRO(name string) error {
	// struct ethtool_value of include/uapi/linux/ethtool.h, and struct ifreq of include/uapi/linux/if.h
	value := struct{ cmd, data uint32 }{unix.ETHTOOL_SGRO, 1}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // ifr_ifru is a union of up to 24 bytes
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(&value)
	if errno != 0 {
		return errno
	}
	return nil
}

func (n *Node) mountBPFFS() error {
	if err := os.MkdirAll(n.BPFFS, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("bpf", n.BPFFS, "bpf", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a bpffs on %s: %w", n.BPFFS, err)
	}
	return nil
}

// Remove kills what runs on the node and in its client, as if the power were cut, and removes both, with all
// interfaces, pins and folders.
func (n *Node) Remove() error {
	var errs []error
	note := func(err error, absent ...error) {
		for _, a := range absent {
			if errors.Is(err, a) {
				return
			}
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	// AddNode may have stopped anywhere.
	for _, ns := range []*Netns{n.Netns, n.Client} {
		if ns != nil {
			note(ns.Kill())
		}
	}
	note(n.removePod())
	// At once, by hand: the kernel removes a namespace and its interfaces in the background.
	if link, err := netlink.LinkByName(n.port()); err == nil {
		note(netlink.LinkDel(link))
	}
	if n.Client != nil {
		note(n.Client.Do(func() error {
			link, err := netlink.LinkByName(wireName)
			if err != nil {
				return nil //nolint:nilerr // it has not come to be
			}
			return netlink.LinkDel(link)
		}))
	}
	// EINVAL: nothing is mounted there. Detached, since a program may have files open, or be leaving just now.
	note(unix.Unmount(n.BPFFS, unix.MNT_DETACH), unix.EINVAL, unix.ENOENT)
	note(os.RemoveAll(n.dir))
	for _, ns := range []*Netns{n.Netns, n.Client} {
		if ns != nil {
			note(ns.remove())
		}
	}
	n.fabric.mu.Lock()
	delete(n.fabric.nodes, n.index)
	n.fabric.mu.Unlock()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove node %s: %w", filepath.Base(n.dir), err)
	}
	return nil
}
