// SPDX-License-Identifier: Apache-2.0

package stacks

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/datapath"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

// A wire is a path over three nodes: sender, forwarder, receiver. The sender hands over large segments to in0, the interface of the
// forwarder that is counted in generic mode. On the second link there are single frames: out0 has all segmentation offloads off.
// So its tx_packets and tx_bytes, and what a program in native mode counts at the receiver, say what in0 has to count.
type wire struct {
	sender, forwarder, receiver *netns.Namespace
	in, out                     *datapath.Unpinned // counts at in0 and at the receiver
	family                      traffic.Family
	address                     string // of the receiver
}

type wireOptions struct {
	mtu    int
	family traffic.Family
	tagged bool
	gsoMax int // of the sender, if not 0
}

// newWire returns nil if the kernel has no VLANs or no BIG TCP, and they are asked for.
func newWire(t *testing.T, o wireOptions) *wire {
	t.Helper()
	w := &wire{sender: netns.New(t), forwarder: netns.New(t), receiver: netns.New(t), family: o.family}
	pair := func(at *netns.Namespace, name string, to *netns.Namespace, peer string) {
		at.Add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer, PeerNamespace: netlink.NsFd(int(to.File().Fd()))})
	}
	pair(w.sender, "s0", w.forwarder, "in0")
	pair(w.forwarder, "out0", w.receiver, "r0")
	// An aggregate of IPv6 with more than 64 KiB has a jumbo option, with which the kernel takes its frames for 8 bytes larger
	// than they are (ip6_pkt_too_big). So the second link has a larger MTU.
	for _, end := range []struct {
		at   *netns.Namespace
		name string
		mtu  int
	}{{w.sender, "s0", o.mtu}, {w.forwarder, "in0", o.mtu}, {w.forwarder, "out0", o.mtu + 8}, {w.receiver, "r0", o.mtu + 8}} {
		end.at.Up(t, end.name)
		end.at.Do(func() { check(t, netlink.LinkSetMTU(link(t, end.name), end.mtu)) })
	}
	var lacking error
	w.sender.Do(func() {
		if o.tagged {
			if lacking = addTag(t, "s0"); lacking == nil {
				check(t, netlink.LinkDel(link(t, "s0.7")))
			}
		}
		if o.gsoMax != 0 {
			lacking = netlink.LinkSetGSOMaxSize(link(t, "s0"), o.gsoMax)
			if lacking == nil && o.family == traffic.IPv4 {
				lacking = netlink.LinkSetGSOIPv4MaxSize(link(t, "s0"), o.gsoMax)
			}
		}
	})
	if lacking != nil {
		if o.tagged && os.Getenv(report.Guest) != "" {
			t.Error(lacking) // all kernels of command kernels have VLANs
		}
		t.Logf("this kernel cannot do it: %v", lacking)
		return nil
	}
	w.forwarder.Do(func() { w.in = attachUnpinned(t, "in0", plan.Generic) })
	// Auto is native mode, except with a large MTU before Linux 5.18.
	w.receiver.Do(func() { w.out = attachUnpinned(t, "r0", plan.Auto) })
	w.forwarder.Do(func() {
		setFeatures(t, "out0", map[string]bool{
			"tx-tcp-segmentation": false, "tx-tcp6-segmentation": false, "tx-udp-segmentation": false, "tx-generic-segmentation": false,
		})
	})
	prefix, bits := "10.3.%d.%d", 24
	if o.family == traffic.IPv6 {
		prefix, bits = "fd00::%d:%d", 112
	}
	at := func(subnet, host int) net.IP { return net.ParseIP(fmt.Sprintf(prefix, subnet, host)) }
	configure := func(n *netns.Namespace, name string, number, host int) {
		n.Do(func() {
			if o.tagged {
				setFeatures(t, name, map[string]bool{"tx-vlan-hw-insert": false}) // the tag is in the frame, and the program sees it
				check(t, addTag(t, name))
				name += ".7"
			}
			if o.family == traffic.IPv6 {
				check(t, os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("0"), 0))
			}
			l := link(t, name)
			check(t, netlink.LinkSetUp(l))
			check(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: subnet(at(number, host), bits), Flags: unix.IFA_F_NODAD}))
		})
	}
	configure(w.sender, "s0", 1, 1)
	configure(w.forwarder, "in0", 1, 2)
	configure(w.forwarder, "out0", 2, 2)
	configure(w.receiver, "r0", 2, 1)
	suffix := ""
	if o.tagged {
		suffix = ".7"
	}
	neighbour := func(n *netns.Namespace, name string, ip net.IP, of *netns.Namespace, peer string) {
		var mac net.HardwareAddr
		of.Do(func() { mac = link(t, peer+suffix).Attrs().HardwareAddr })
		n.Do(func() {
			check(t, netlink.NeighSet(&netlink.Neigh{LinkIndex: link(t, name+suffix).Attrs().Index, IP: ip, HardwareAddr: mac, State: netlink.NUD_PERMANENT}))
		})
	}
	neighbour(w.sender, "s0", at(1, 2), w.forwarder, "in0")
	neighbour(w.forwarder, "in0", at(1, 1), w.sender, "s0")
	neighbour(w.forwarder, "out0", at(2, 1), w.receiver, "r0")
	neighbour(w.receiver, "r0", at(2, 2), w.forwarder, "out0")
	w.forwarder.Do(func() {
		check(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
		check(t, os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
	})
	w.sender.Do(func() { check(t, netlink.RouteAdd(&netlink.Route{Dst: subnet(at(2, 0), bits), Gw: at(1, 2)})) })
	w.receiver.Do(func() { check(t, netlink.RouteAdd(&netlink.Route{Dst: subnet(at(1, 0), bits), Gw: at(2, 2)})) })
	w.address = net.JoinHostPort(at(2, 1).String(), "5000")
	return w
}

func addTag(t *testing.T, name string) error {
	t.Helper()
	return netlink.LinkAdd(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: name + ".7", ParentIndex: link(t, name).Attrs().Index}, VlanId: 7})
}

func subnet(ip net.IP, bits int) *net.IPNet {
	if v4 := ip.To4(); v4 != nil {
		ip = v4
	}
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, len(ip)*8)}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	check(t, err)
	return l
}

func setFeatures(t *testing.T, name string, features map[string]bool) {
	t.Helper()
	tool, err := ethtool.NewEthtool()
	check(t, err)
	defer tool.Close()
	check(t, tool.Change(name, features))
}

func attachUnpinned(t *testing.T, name string, mode plan.Mode) *datapath.Unpinned {
	t.Helper()
	u, err := datapath.OpenUnpinned("boot")
	check(t, err)
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	check(t, u.Attach(plan.Attachment{Index: link(t, name).Attrs().Index, Name: name, Mode: mode}))
	return u
}

// tcp sends so many bytes by TCP. The receiver's buffer limits what is on the way, so that no queue overflows.
func (w *wire) tcp(t *testing.T, size, buffer int) {
	t.Helper()
	var listener net.Listener
	w.receiver.Do(func() {
		var err error
		config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, buffer) })
		}}
		listener, err = config.Listen(t.Context(), "tcp", w.address)
		check(t, err)
	})
	defer listener.Close()
	received := make(chan error, 1)
	go func() {
		c, err := listener.Accept()
		if err != nil {
			received <- err
			return
		}
		defer c.Close()
		if n, err := io.Copy(io.Discard, c); n != int64(size) || err != nil {
			received <- fmt.Errorf("%d of %d bytes were received: %w", n, size, err)
			return
		}
		received <- nil
	}()
	var c net.Conn
	w.sender.Do(func() {
		var err error
		c, err = net.DialTimeout("tcp", w.address, 10*time.Second)
		check(t, err)
	})
	defer c.Close()
	check(t, c.SetDeadline(time.Now().Add(30*time.Second)))
	_, err := c.Write(make([]byte, size))
	check(t, errors.Join(err, c.Close(), <-received))
}

// udp sends datagrams of the size, many in one call (UDP_SEGMENT), the last one of each call being shorter.
func (w *wire) udp(t *testing.T, calls, size, together int) {
	t.Helper()
	w.receiver.Do(func() { // otherwise the kernel would answer
		c, err := net.ListenPacket("udp", w.address)
		check(t, err)
		t.Cleanup(func() { c.Close() })
	})
	w.sender.Do(func() {
		c, err := net.Dial("udp", w.address)
		check(t, err)
		defer c.Close()
		raw, err := c.(*net.UDPConn).SyscallConn()
		check(t, err)
		check(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) }))
		check(t, err)
		for range calls {
			_, err := c.Write(make([]byte, size*(together-1)+size/3))
			check(t, err)
			time.Sleep(2 * time.Millisecond)
		}
	})
}

func (w *wire) totals(t *testing.T) (in, out traffic.Totals) {
	t.Helper()
	for u, to := range map[*datapath.Unpinned]*traffic.Totals{w.in: &in, w.out: &out} {
		readings, err := u.Read()
		check(t, err)
		*to = readings[0].Totals
	}
	return in, out
}

// expect compares what is counted with the wire.
func (w *wire) expect(t *testing.T, protocol uint8, mtu int) {
	t.Helper()
	class := traffic.IP(w.family, protocol)
	var sent, bytes, dropped uint64
	var in, out traffic.Totals
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		w.forwarder.Do(func() {
			s := link(t, "out0").Attrs().Statistics
			sent, bytes, dropped = s.TxPackets, s.TxBytes, s.TxDropped
		})
		in, out = w.totals(t)
		if in[class] == out[class] && out.Sum().Packets == sent || time.Now().After(deadline) {
			break
		}
	}
	aggregates := rxPackets(t, w.forwarder, "in0")
	t.Logf("%s: generic %d frames, %d bytes; the receiver %d, %d; the wire %d, %d; %d skbs", class, in[class].Packets, in[class].Bytes, out[class].Packets, out[class].Bytes, sent, bytes, aggregates)
	if out.Sum().Bytes == bytes+14*sent {
		bytes += 14 * sent // a veth whose peer has a program in native mode counts without the Ethernet header
	}
	if out.Sum().Packets != sent || out.Sum().Bytes != bytes || dropped != 0 {
		t.Errorf("at the receiver %d packets and %d bytes are counted, and the wire has %d and %d, with %d dropped", out.Sum().Packets, out.Sum().Bytes, sent, bytes, dropped)
	}
	// On older kernels (5.10) a veth takes no aggregates of UDP: then the sender's kernel has made frames of them.
	single := protocol == unix.IPPROTO_UDP && aggregates >= out[class].Packets
	if single {
		t.Log("this kernel hands over single frames")
	}
	if mean := out[class].Bytes / max(out[class].Packets, 1); mean > uint64(mtu)+18 || !single && 10*aggregates > 9*sent {
		t.Errorf("the wire has %d frames of %d bytes on average, and %d skbs arrived: there was nothing to test", sent, mean, aggregates)
	}
	if in[class] != out[class] {
		t.Errorf("in generic mode %d frames and %d bytes are counted, and the wire has %d and %d", in[class].Packets, in[class].Bytes, out[class].Packets, out[class].Bytes)
	}
}

// vxlan makes a VXLAN between sender and receiver, with the receiver's address in it.
func (w *wire) vxlan(t *testing.T, mtu int) (possible bool) {
	t.Helper()
	outside := func(n *netns.Namespace, name string) (ip net.IP) {
		n.Do(func() {
			list, err := netlink.AddrList(link(t, name), netlink.FAMILY_V4)
			check(t, err)
			ip = list[0].IP
		})
		return ip
	}
	ends := []struct {
		at   *netns.Namespace
		ip   net.IP
		mine net.IP
		mac  net.HardwareAddr
	}{
		{w.sender, outside(w.sender, "s0"), net.IPv4(10, 4, 0, 1), net.HardwareAddr{2, 0, 0, 0, 0, 1}},
		{w.receiver, outside(w.receiver, "r0"), net.IPv4(10, 4, 0, 2), net.HardwareAddr{2, 0, 0, 0, 0, 2}},
	}
	for i, end := range ends {
		far := ends[1-i]
		var err error
		end.at.Do(func() {
			err = netlink.LinkAdd(&netlink.Vxlan{
				LinkAttrs: netlink.LinkAttrs{Name: "vxlan0", MTU: mtu - 50, HardwareAddr: end.mac}, VxlanId: 7, SrcAddr: end.ip, Group: far.ip, Port: 4789,
			})
		})
		if errors.Is(err, unix.EOPNOTSUPP) && os.Getenv(report.Guest) == "" {
			t.Log("this kernel has no VXLAN")
			return false
		}
		check(t, err)
		end.at.Up(t, "vxlan0")
		end.at.Do(func() {
			l := link(t, "vxlan0")
			check(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: subnet(end.mine, 24)}))
			check(t, netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: far.mine, HardwareAddr: far.mac, State: netlink.NUD_PERMANENT}))
		})
	}
	w.address = net.JoinHostPort(ends[1].mine.String(), "5000")
	return true
}

// The frames are of the class of the tunnel, and repeat all headers.
func TestWireFramesOfATunnel(t *testing.T) {
	w := newWire(t, wireOptions{mtu: 1500, family: traffic.IPv4})
	if w.vxlan(t, 1500) {
		w.tcp(t, 8<<20, 100_000)
		w.expect(t, unix.IPPROTO_UDP, 1500)
	}
}

// In generic mode, too, a packet is a frame on the wire, also if the sender hands over many frames in one piece.
func TestWireFramesInGenericMode(t *testing.T) {
	for _, family := range []traffic.Family{traffic.IPv4, traffic.IPv6} {
		for _, tagged := range []bool{false, true} {
			for _, mtu := range []int{1500, 9000} {
				o := wireOptions{mtu: mtu, family: family, tagged: tagged}
				name := fmt.Sprintf("%v, MTU %d", family, mtu)
				if tagged {
					name += ", tagged"
				}
				t.Run("TCP over "+name, func(t *testing.T) {
					if w := newWire(t, o); w != nil {
						w.tcp(t, 8<<20, 100_000)
						w.expect(t, unix.IPPROTO_TCP, mtu)
					}
				})
				t.Run("UDP over "+name, func(t *testing.T) {
					if w := newWire(t, o); w != nil {
						w.udp(t, 50, 1000, 40)
						w.expect(t, unix.IPPROTO_UDP, mtu)
					}
				})
			}
		}
		t.Run(fmt.Sprintf("BIG TCP over %v", family), func(t *testing.T) {
			if w := newWire(t, wireOptions{mtu: 1500, family: family, gsoMax: 150_000}); w != nil {
				w.tcp(t, 32<<20, 150_000)
				w.expect(t, unix.IPPROTO_TCP, 1500)
			}
		})
	}
}
