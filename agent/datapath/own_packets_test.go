// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
	"github.com/xdp-operator/xdp-operator/test/util/bpffs"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

// lan is a node and another machine on one wire. Unlike a host, both have addresses, ARP, IPv6, IGMP and MLD.
type lan struct {
	*Datapath
	node, other *netns.Namespace
	name        string // the node's interface that is counted
	otherName   string // the other machine's
	index       int
}

// onTop makes the interfaces on top of eth0 of the node and of the other machine, and returns their names.
type onTop func(node bool) (name string, err error)

var tops = map[string]onTop{
	"veth": func(bool) (string, error) { return "eth0", nil },
	"bridge": func(node bool) (string, error) {
		if !node {
			return "eth0", nil
		}
		br0 := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		err := netlink.LinkAdd(br0)
		eth0, errE := netlink.LinkByName("eth0")
		if err := errors.Join(err, errE); err != nil {
			return "", err
		}
		return "br0", netlink.LinkSetMaster(eth0, br0)
	},
	"VLAN": func(bool) (string, error) {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return "", err
		}
		return "eth0.100", netlink.LinkAdd(&netlink.Vlan{LinkAttrs: on(eth0.Attrs().Index, "eth0.100"), VlanId: 100})
	},
}

// newLAN returns nil if this kernel has no such interfaces. Those of command kernels have all.
func newLAN(t *testing.T, top onTop, mode plan.Mode) *lan {
	t.Helper()
	d, err := Open(bpffs.Mount(t), bootID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	l := &lan{Datapath: d, node: netns.New(t), other: netns.New(t)}
	l.node.Add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(l.other.File().Fd()))})

	l.node.Do(func() {
		if l.name, err = top(true); err != nil {
			return
		}
		var counted netlink.Link
		if counted, err = netlink.LinkByName(l.name); err != nil {
			return
		}
		l.index = counted.Attrs().Index
		// While it is down, so that what it has received is what is counted.
		err = l.Attach(plan.Attachment{Index: l.index, Name: l.name, Mode: mode})
	})
	if errors.Is(err, unix.EOPNOTSUPP) && os.Getenv(report.Guest) == "" {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	l.other.Do(func() { l.otherName, err = top(false) })
	if err != nil {
		t.Fatal(err)
	}
	l.up(t, l.node, l.name, "192.0.2.2/24", "2001:db8:a1b2::2/64")
	l.up(t, l.other, l.otherName, "192.0.2.1/24", "2001:db8:a1b2::1/64")
	l.node.Ready(t, l.name)
	l.awaitLinkLocal(t)
	return l
}

// awaitLinkLocal waits until the node's interface has its link-local address, from which it sends to groups of the link.
func (l *lan) awaitLinkLocal(t *testing.T) {
	t.Helper()
	l.node.Do(func() {
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			link, err := netlink.LinkByIndex(l.index)
			if err != nil {
				t.Fatal(err)
			}
			addresses, err := netlink.AddrList(link, netlink.FAMILY_V6)
			if slices.ContainsFunc(addresses, func(a netlink.Addr) bool {
				return a.IP.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0
			}) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("no link-local address: %v, %v", addresses, err)
			}
		}
	})
}

// up sets the interfaces of a machine up. The old versions of IGMP and MLD send reports to the group itself, so that the node
// gets its own.
func (l *lan) up(t *testing.T, n *netns.Namespace, name string, addresses ...string) {
	t.Helper()
	n.Do(func() {
		for file, value := range map[string]string{
			"ipv4/conf/" + name + "/force_igmp_version": "2", "ipv6/conf/" + name + "/force_mld_version": "1",
			"ipv6/conf/" + name + "/accept_dad": "0", "ipv4/conf/all/rp_filter": "0",
		} {
			if err := os.WriteFile("/proc/sys/net/"+file, []byte(value), 0); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"lo", "eth0", name} {
			link, err := netlink.LinkByName(name)
			if err := errors.Join(err, netlink.LinkSetUp(link)); err != nil {
				t.Fatal(err)
			}
		}
		l.address(t, name, addresses...)
	})
}

// address adds addresses to an interface in the namespace of the calling thread.
func (l *lan) address(t *testing.T, name string, addresses ...string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range addresses {
		address, err := netlink.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		if address.IP.To4() == nil {
			address.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, address); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

// socket makes a UDP socket on an interface in the namespace of the calling thread, which has joined the group.
func socket(t *testing.T, name string, group netip.Addr, from string) *os.File {
	t.Helper()
	link, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	family := unix.AF_INET6
	if group.Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), group.String())
	t.Cleanup(func() { file.Close() }) // does nothing if it is closed already
	errs := []error{
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}),
		unix.BindToDevice(fd, name),
	}
	switch {
	case group.Is6():
		errs = append(errs, unix.Bind(fd, &unix.SockaddrInet6{Port: port}))
		if group.IsMulticast() {
			errs = append(errs, unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(link.Index)}),
				unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, link.Index))
		}
	case group.IsMulticast():
		out := &unix.IPMreqn{Ifindex: int32(link.Index)}
		if from != "" {
			out.Address = netip.MustParseAddr(from).As4()
		}
		errs = append(errs, unix.Bind(fd, &unix.SockaddrInet4{Port: port}),
			unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(link.Index)}),
			unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, out))
	default:
		errs = append(errs, unix.Bind(fd, &unix.SockaddrInet4{Port: port}))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("socket for %s on %s: %v", group, name, err)
	}
	return file
}

const port = 5353

// send sends n datagrams from one socket, and expects that another, which may be the same, receives each.
func send(t *testing.T, from, to *os.File, address netip.Addr, index, size, n int) {
	t.Helper()
	var where unix.Sockaddr = &unix.SockaddrInet6{Addr: address.As16(), Port: port}
	if address.Is4() {
		where = &unix.SockaddrInet4{Addr: address.As4(), Port: port}
	} else if address.IsLinkLocalMulticast() || address.IsLinkLocalUnicast() {
		where.(*unix.SockaddrInet6).ZoneId = uint32(index)
	}
	data, got := make([]byte, size), make([]byte, 1<<16)
	for i := range n {
		if err := unix.Sendto(int(from.Fd()), data, 0, where); err != nil {
			t.Fatalf("send %d bytes to %s: %v", size, address, err)
		}
		if n, _, err := unix.Recvfrom(int(to.Fd()), got, 0); err != nil || n != size {
			t.Fatalf("datagram %d of %d bytes to %s: received %d bytes, %v", i+1, size, address, n, err)
		}
	}
}

// received returns how many packets the counted interface has received.
func (l *lan) received(t *testing.T) (packets uint64) {
	t.Helper()
	l.node.Do(func() {
		link, err := netlink.LinkByIndex(l.index)
		if err != nil {
			t.Fatal(err)
		}
		packets = link.Attrs().Statistics.RxPackets
	})
	return packets
}

// expectReceivedOnly waits until as many packets are counted as were received, which are at least that many. All are of known
// protocols: what is read at a wrong offset is most probably not.
func (l *lan) expectReceivedOnly(t *testing.T, least uint64) {
	t.Helper()
	var reading []traffic.Reading
	var received uint64
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var err error
		if reading, err = l.Read(); err != nil || len(reading) != 1 {
			t.Fatalf("readings %v, %v", reading, err)
		}
		received = l.received(t)
		if sum := reading[0].Totals.Sum().Packets; sum == received && received >= least {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("rx_packets is %d, at least %d were sent to it, and counted are %v", received, least, listed(reading[0].Totals))
		}
	}
	for _, class := range []traffic.Class{traffic.ClassOther, traffic.ClassMalformed} {
		if n := reading[0].Totals[class].Packets; n != 0 {
			t.Errorf("%d packets are %s: %v", n, class, listed(reading[0].Totals))
		}
	}
	t.Logf("received and counted %d: %v", received, listed(reading[0].Totals))
}

// The kernel passes copies of a node's multicasts and broadcasts to generic XDP. They were not received.
func TestWhatTheNodeSendsIsNotCounted(t *testing.T) {
	for name, top := range tops {
		for _, mode := range []plan.Mode{plan.Generic, plan.Auto} {
			if name == "veth" && mode == plan.Auto {
				continue // is native, where the program never sees these packets
			}
			t.Run(fmt.Sprintf("%s in mode %s", name, mode), func(t *testing.T) {
				l := newLAN(t, top, mode)
				if l == nil {
					return
				}
				l.node.Do(func() {
					l.address(t, l.name, "8.6.0.1/24", "129.0.0.1/24")
					for _, tc := range []struct {
						to, from string
						size     int
					}{
						{to: "224.0.0.251", size: 60},  // mDNS
						{to: "239.1.2.3", size: 20000}, // more than the MTU
						{to: "239.1.2.3", from: "8.6.0.1", size: 20},
						{to: "239.1.2.3", from: "129.0.0.1", size: 20},
						{to: "255.255.255.255", size: 300},
						{to: "192.0.2.255", size: 20},
						{to: "8.6.0.255", size: 20},
						{to: "ff02::fb", size: 60},    // mDNS, from a link-local address
						{to: "ff05::1:3", size: 60},   // from a global address
						{to: "ff02::1:3", size: 4000}, // in fragments, from a link-local address
						{to: "ff3e::8000:1", size: 0},
					} {
						to := netip.MustParseAddr(tc.to)
						s := socket(t, l.name, to, tc.from)
						send(t, s, s, to, l.index, tc.size, 50)
						s.Close() // leaves the group, which sends a message too
					}
				})
				l.expectReceivedOnly(t, 0)

				// What arrives is counted, also multicasts and broadcasts, and those of groups that the node is in.
				const n = 20
				var least uint64
				for _, to := range []string{"192.0.2.2", "2001:db8:a1b2::2", "239.1.2.3", "224.0.0.251", "255.255.255.255", "192.0.2.255", "ff02::fb", "ff05::1:3"} {
					address := netip.MustParseAddr(to)
					var from, receiver *os.File
					var out int
					l.node.Do(func() { receiver = socket(t, l.name, address, "") })
					l.other.Do(func() {
						from = socket(t, l.otherName, address, "")
						link, err := net.InterfaceByName(l.otherName)
						if err != nil {
							t.Fatal(err)
						}
						out = link.Index
					})
					send(t, from, receiver, address, out, 100, n)
					from.Close()
					receiver.Close()
					least += n
				}
				l.expectReceivedOnly(t, least)
			})
		}
	}
}

// An agent of version 0.1.0 attached the program for native mode generically. Its link gets the program for generic mode.
func TestGenericLinkWithTheProgramForNativeModeIsUpdated(t *testing.T) {
	for mode, wrong := range map[plan.Mode]variant{plan.Generic: oneBuffer, plan.Native: genericMode} {
		t.Run(string(mode), func(t *testing.T) {
			h := newHost(t)
			h.mustAttach(t, mode)
			h.traffic(t, 5)
			h.expectCounted(t)
			before := h.onlyAttached(t)
			h.runVariant(t, wrong)
			if a := h.onlyAttached(t); !a.Outdated {
				t.Fatalf("a program for %s in mode %s is not outdated", wrong, mode)
			}
			h.open(t) // as a new agent, which does not remember the mode
			h.traffic(t, 5)
			h.mustAttach(t, mode)
			after := h.expectVariant(t, h.best(t, mode))
			if after.Map != before.Map {
				t.Errorf("updated to %+v from %+v", after, before)
			}
			h.traffic(t, 5)
			h.expectCounted(t)
		})
	}
}

// The program for generic mode stays when the MTU changes, which makes the agent choose again.
func TestGenericLinkKeepsItsProgramWithAnotherMTU(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Generic)
	h.onlyAttached(t)
	h.setMTU(t, 9000)
	if !h.onlyAttached(t).Outdated {
		t.Error("the program is not chosen again")
	}
	h.mustAttach(t, plan.Generic)
	h.expectVariant(t, h.best(t, plan.Generic))
	h.jumbo(t, 9000)
	h.expectCounted(t)
}

func TestGenericLinkOfAnotherLayoutGetsTheProgramForGenericMode(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Generic)
	h.runVariant(t, oneBuffer)
	h.traffic(t, 5)
	h.upgrade(t)
	h.mustAttach(t, plan.Generic)
	h.traffic(t, 5)
	h.sum(t)
	if err := h.Detach(h.attached(t)[0]); err != nil { // the counts of the earlier layout
		t.Fatal(err)
	}
	h.expectVariant(t, h.best(t, plan.Generic))
}

// runVariant makes the link run a variant, and pins it, as an agent that had no other would.
func (h *host) runVariant(t *testing.T, v variant) {
	t.Helper()
	f := h.folder(h.index)
	l, err := openLink(f.linkPin())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	counts, _, err := h.counts(f)
	if err != nil {
		t.Fatal(err)
	}
	defer counts.Close()
	program, err := v.load(h.spec, counts)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if err := errors.Join(l.Update(program), f.pinProgram(program)); err != nil {
		t.Fatal(err)
	}
}
