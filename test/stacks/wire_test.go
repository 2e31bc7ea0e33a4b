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
// forwarder that is counted in the mode under test. On the second link there are single frames: out0 has all segmentation offloads
// off. So its tx_packets and tx_bytes, and what a program in native mode counts at the receiver, say what in0 has to count.
type wire struct {
	wireOptions
	sender, forwarder, receiver *netns.Namespace
	in, out                     *datapath.Unpinned             // counts at in0 and at the receiver
	second                      func() *netlink.LinkStatistics // of the sending end of the second link
	address                     string                         // of the receiver
	arrived                     *arrivals                      // at in0
}

type wireOptions struct {
	mode   plan.Mode
	mtu    int
	family traffic.Family
	tagged bool
	gsoMax int    // of the sender, if not 0
	gro    string // a kind of GRO, on a node between sender and forwarder, to which the sender hands over single frames
}

// wireModes are the modes in which the same frames are counted.
var wireModes = []plan.Mode{plan.Native, plan.Generic}

// newWire returns nil if the kernel lacks something that is asked for: VLANs, BIG TCP, or native mode with a large MTU.
func newWire(t *testing.T, o wireOptions) *wire {
	t.Helper()
	w := &wire{wireOptions: o, sender: netns.New(t), forwarder: netns.New(t), receiver: netns.New(t)}
	if o.gro == "" {
		pair(t, w.sender, "s0", w.forwarder, "in0")
	} else if !w.gather(t) {
		return nil
	}
	pair(t, w.forwarder, "out0", w.receiver, "r0")
	// If an aggregate of IPv6 has extension headers, or a jumbo option because it has more than 64 KiB, the kernel takes its frames
	// for up to 68 bytes larger than they are when it forwards it (ip6_pkt_too_big). So the second link has a larger MTU.
	for _, end := range []struct {
		at   *netns.Namespace
		name string
		mtu  int
	}{{w.sender, "s0", o.mtu}, {w.forwarder, "in0", o.mtu}, {w.forwarder, "out0", o.mtu + 100}, {w.receiver, "r0", o.mtu + 100}} {
		end.at.Up(t, end.name)
		end.at.Do(func() { check(t, netlink.LinkSetMTU(link(t, end.name), end.mtu)) })
	}
	var lacking error
	if o.tagged {
		w.sender.Do(func() {
			if lacking = addTag(t, "s0"); lacking == nil {
				check(t, netlink.LinkDel(link(t, "s0.7")))
			}
		})
	}
	if lacking != nil {
		if os.Getenv(report.Guest) != "" {
			t.Error(lacking) // all kernels of command kernels have VLANs
		}
		t.Logf("this kernel cannot do it: %v", lacking)
		return nil
	}
	w.forwarder.Do(func() { w.in, lacking = attachUnpinned(t, "in0", o.mode) })
	if errors.Is(lacking, plan.ErrMTUTooLarge) { // before Linux 5.18
		t.Logf("this kernel cannot do it: %v", lacking)
		return nil
	}
	check(t, lacking)
	w.receiver.Do(func() {
		var err error
		if w.out, err = attachUnpinned(t, "r0", plan.Native); errors.Is(err, plan.ErrMTUTooLarge) {
			w.out, err = attachUnpinned(t, "r0", plan.Generic)
		}
		check(t, err)
	})
	w.forwarder.Do(func() {
		tag := 0
		if o.tagged {
			tag = 4
		}
		w.arrived = watchArrivals(t, "in0", tag)
		setFeatures(t, "out0", noAggregates)
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
	suffix := ""
	if o.tagged {
		suffix = ".7"
	}
	configure(w.sender, "s0", 1, 1)
	if o.gsoMax != 0 {
		w.sender.Do(func() {
			for _, name := range []string{"s0", "s0" + suffix} {
				lacking = errors.Join(lacking, setGSOMax(link(t, name), o.family, o.gsoMax))
			}
		})
		if lacking != nil { // before Linux 5.19, for IPv4 before 6.3
			t.Logf("this kernel cannot do it: %v", lacking)
			return nil
		}
	}
	configure(w.forwarder, "in0", 1, 2)
	configure(w.forwarder, "out0", 2, 2)
	configure(w.receiver, "r0", 2, 1)
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
	w.second = func() (s *netlink.LinkStatistics) {
		w.forwarder.Do(func() { s = link(t, "out0").Attrs().Statistics })
		return s
	}
	w.address = net.JoinHostPort(at(2, 1).String(), "5000")
	return w
}

// noAggregates are the features of an interface that is given single frames.
var noAggregates = map[string]bool{
	"tx-tcp-segmentation": false, "tx-tcp6-segmentation": false, "tx-tcp-mangleid-segmentation": false, "tx-tcp-ecn-segmentation": false,
	"tx-udp-segmentation": false, "tx-generic-segmentation": false,
}

// gather makes a node with a bridge between sender and forwarder. It returns false if the kernel has no such GRO on a veth.
func (w *wire) gather(t *testing.T) (possible bool) {
	t.Helper()
	n := netns.New(t)
	pair(t, w.sender, "s0", n, "g0")
	pair(t, n, "g1", w.forwarder, "in0")
	n.Add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}})
	n.Do(func() {
		tool, err := ethtool.NewEthtool()
		check(t, err)
		defer tool.Close()
		features, err := tool.Features("g0")
		check(t, err)
		// Without XDP a veth does GRO since Linux 5.13, and from then on it is off by default.
		if _, known := features[w.gro]; !known || features["rx-gro"] {
			t.Logf("this kernel has no %s on a veth", w.gro)
			return
		}
		check(t, tool.Change("g0", map[string]bool{"rx-gro": true, w.gro: true}))
		for _, name := range []string{"g0", "g1"} {
			check(t, netlink.LinkSetMasterByIndex(link(t, name), link(t, "br0").Attrs().Index))
		}
		possible = true
	})
	for _, name := range []string{"g0", "g1", "br0"} {
		n.Up(t, name)
	}
	w.sender.Do(func() { setFeatures(t, "s0", noAggregates) })
	return possible
}

// pair makes a veth pair between two namespaces.
func pair(t *testing.T, at *netns.Namespace, name string, to *netns.Namespace, peer string) {
	t.Helper()
	at.Add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer, PeerNamespace: netlink.NsFd(int(to.File().Fd()))})
}

func addTag(t *testing.T, name string) error {
	t.Helper()
	return netlink.LinkAdd(&netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: name + ".7", ParentIndex: link(t, name).Attrs().Index}, VlanId: 7})
}

func setGSOMax(l netlink.Link, family traffic.Family, size int) error {
	if err := netlink.LinkSetGSOMaxSize(l, size); err != nil || family == traffic.IPv6 {
		return err
	}
	if err := netlink.LinkSetGSOIPv4MaxSize(l, size); err != nil {
		return err
	}
	// Kernels ignore what they do not know.
	now, err := netlink.LinkByIndex(l.Attrs().Index)
	if err == nil && int(now.Attrs().GSOIPv4MaxSize) != size {
		err = fmt.Errorf("set gso_ipv4_max_size of %s: %w", l.Attrs().Name, unix.EOPNOTSUPP)
	}
	return err
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

// attachUnpinned returns the error of attaching.
func attachUnpinned(t *testing.T, name string, mode plan.Mode) (*datapath.Unpinned, error) {
	t.Helper()
	u, err := datapath.OpenUnpinned("boot")
	check(t, err)
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u, u.Attach(plan.Attachment{Index: link(t, name).Attrs().Index, Name: name, Mode: mode})
}

// A socketOption is one of the sender's.
type socketOption func(fd int) error

func withOptions(t *testing.T, options []socketOption) func(_, _ string, c syscall.RawConn) error {
	t.Helper()
	return func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			for _, o := range options {
				if err := o(int(fd)); err != nil {
					t.Errorf("set an option of the socket: %v", err)
				}
			}
		})
	}
}

// tcp sends so many bytes by TCP. The receiver's buffer limits what is on the way, so that no queue overflows.
func (w *wire) tcp(t *testing.T, size, buffer int, options ...socketOption) {
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
		c, err = (&net.Dialer{Timeout: 10 * time.Second, Control: withOptions(t, options)}).Dial("tcp", w.address)
		check(t, err)
	})
	defer c.Close()
	check(t, c.SetDeadline(time.Now().Add(30*time.Second)))
	_, err := c.Write(make([]byte, size))
	check(t, errors.Join(err, c.Close(), <-received))
}

// udp sends datagrams of the size, many in one call (UDP_SEGMENT), the last one of each call being shorter. It returns false if the
// kernel cannot do that with the options of the socket.
func (w *wire) udp(t *testing.T, calls, size, together int, options ...socketOption) (possible bool) {
	t.Helper()
	w.receiver.Do(func() { // otherwise the kernel would answer
		c, err := net.ListenPacket("udp", w.address)
		check(t, err)
		t.Cleanup(func() { c.Close() })
	})
	w.sender.Do(func() {
		c, err := (&net.Dialer{Control: withOptions(t, options)}).Dial("udp", w.address)
		check(t, err)
		defer c.Close()
		raw, err := c.(*net.UDPConn).SyscallConn()
		check(t, err)
		check(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) }))
		check(t, err)
		for range calls {
			_, err := c.Write(make([]byte, size*(together-1)+size/3))
			if errors.Is(err, unix.EIO) && len(options) > 0 { // extension headers before Linux 6.11
				t.Logf("this kernel cannot do it: %v", err)
				return
			}
			check(t, err)
			time.Sleep(2 * time.Millisecond)
		}
		possible = true
	})
	return possible
}

// amount is less in an emulated machine.
func amount(n int) int {
	if testing.Short() {
		return n / 4
	}
	return n
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

// expect compares what is counted with the wire. In generic mode the frames have to arrive as aggregates.
func (w *wire) expect(t *testing.T, protocol uint8) {
	t.Helper()
	class := traffic.IP(w.family, protocol)
	var sent, bytes, dropped uint64
	var in, out traffic.Totals
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s := w.second()
		sent, bytes, dropped = s.TxPackets, s.TxBytes, s.TxDropped
		in, out = w.totals(t)
		if in[class] == out[class] && out.Sum().Packets == sent || time.Now().After(deadline) {
			break
		}
	}
	arrived := w.arrived.end(t)
	t.Logf("%s: %s mode %d frames, %d bytes; the receiver %d, %d; the wire %d, %d; %v", class, w.mode,
		in[class].Packets, in[class].Bytes, out[class].Packets, out[class].Bytes, sent, bytes, arrived)
	if out.Sum().Bytes == bytes+14*sent {
		bytes += 14 * sent // a veth whose peer has a program in native mode counts without the Ethernet header
	}
	if out.Sum().Packets != sent || out.Sum().Bytes != bytes || dropped != 0 {
		t.Errorf("at the receiver %d packets and %d bytes are counted, and the wire has %d and %d, with %d dropped", out.Sum().Packets, out.Sum().Bytes, sent, bytes, dropped)
	}
	if mean := out[class].Bytes / max(out[class].Packets, 1); mean > uint64(w.mtu)+18 || mean < 100 {
		t.Errorf("the wire has %d frames of %d bytes on average: not those that were to be sent", sent, mean)
	}
	// On older kernels (5.10) a veth takes no aggregates of UDP: then the sender's kernel has made frames of them.
	single := protocol == unix.IPPROTO_UDP && arrived.packets >= out[class].Packets
	if single && w.mode == plan.Generic {
		t.Log("this kernel hands over single frames")
	}
	if w.mode == plan.Generic && !single && 10*arrived.packets > 9*sent {
		t.Errorf("%d packets arrived for %d frames: there was nothing to test", arrived.packets, sent)
	}
	want := out[class]
	if w.mode == plan.Native {
		// Linux sends a few frames with a jumbo option, and takes them for too short itself: they are not forwarded.
		want = want.Plus(arrived.jumbo)
	}
	if in[class] != want {
		t.Errorf("in %s mode %d frames and %d bytes are counted, and the wire has %d and %d", w.mode, in[class].Packets, in[class].Bytes, want.Packets, want.Bytes)
	}
}

// In both modes a packet is a frame on the wire, also if the sender hands over many frames in one piece.
func TestWireFrames(t *testing.T) {
	for _, mode := range wireModes {
		for _, family := range []traffic.Family{traffic.IPv4, traffic.IPv6} {
			for _, tagged := range []bool{false, true} {
				for _, mtu := range []int{1500, 9000} {
					o := wireOptions{mode: mode, mtu: mtu, family: family, tagged: tagged}
					name := fmt.Sprintf("%v, MTU %d, %s mode", family, mtu, mode)
					if tagged {
						name = "tagged " + name
					}
					t.Run("TCP over "+name, func(t *testing.T) {
						if w := newWire(t, o); w != nil {
							w.tcp(t, amount(4<<20), 100_000)
							w.expect(t, unix.IPPROTO_TCP)
						}
					})
					t.Run("UDP over "+name, func(t *testing.T) {
						if w := newWire(t, o); w != nil {
							w.udp(t, amount(50), 1000, 40)
							w.expect(t, unix.IPPROTO_UDP)
						}
					})
				}
			}
		}
	}
}

// Aggregates of more than 64 KiB. In those of IPv6 many kernels have a jumbo option, which is in no frame on the wire.
func TestWireFramesOfBigTCP(t *testing.T) {
	for _, mode := range wireModes {
		for _, family := range []traffic.Family{traffic.IPv4, traffic.IPv6} {
			for _, tagged := range []bool{false, true} {
				for mtu, buffer := range map[int]int{1500: 150_000, 9000: 1_000_000} {
					name := fmt.Sprintf("%v, MTU %d, %s mode", family, mtu, mode)
					if tagged {
						name = "tagged " + name
					}
					t.Run(name, func(t *testing.T) {
						for range 5 { // how large an aggregate becomes depends on when the receiver acknowledges
							w := newWire(t, wireOptions{mode: mode, mtu: mtu, family: family, tagged: tagged, gsoMax: 150_000})
							if w == nil {
								return
							}
							w.tcp(t, amount(32<<20), buffer)
							w.expect(t, unix.IPPROTO_TCP)
							if w.mode != plan.Generic || mtu != 9000 || w.arrived.largest > 1<<16+100 {
								return
							}
						}
						t.Error("no packet had more than 64 KiB: there was nothing to test")
					})
				}
			}
		}
	}
}
