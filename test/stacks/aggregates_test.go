// SPDX-License-Identifier: Apache-2.0

package stacks

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
)

// option returns an option of the socket.
func option(level, name int, value string) socketOption {
	return func(fd int) error { return unix.SetsockoptString(fd, level, name, value) }
}

// The headers of IPv6, and options of IPv4, between the IP header and that of TCP or UDP are in each frame.
func TestWireFramesWithLongerHeaders(t *testing.T) {
	const pad = "\x00\x00\x01\x04\x00\x00\x00\x00" // an extension header of 8 bytes, with PadN
	destination := option(unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, pad)
	hopByHop := option(unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, "\x00\x01\x1e\x0c"+string(make([]byte, 12))) // 16 bytes, with an option that nodes skip
	options := option(unix.IPPROTO_IP, unix.IP_OPTIONS, "\x01\x01\x01\x01\x01\x01\x01\x00")
	for name, test := range map[string]struct {
		family  traffic.Family
		gsoMax  int
		options []socketOption
	}{
		"destination options":                {traffic.IPv6, 0, []socketOption{destination}},
		"hop-by-hop options":                 {traffic.IPv6, 0, []socketOption{hopByHop}},
		"hop-by-hop and destination options": {traffic.IPv6, 0, []socketOption{hopByHop, destination}},
		"BIG TCP with destination options":   {traffic.IPv6, 150_000, []socketOption{destination}},
		"options of IPv4":                    {traffic.IPv4, 0, []socketOption{options}},
		"BIG TCP with options of IPv4":       {traffic.IPv4, 150_000, []socketOption{options}},
	} {
		for _, mode := range wireModes {
			for _, tagged := range []bool{false, true} {
				o := wireOptions{mode: mode, mtu: 1500, family: test.family, gsoMax: test.gsoMax, tagged: tagged}
				t.Run(fmt.Sprintf("TCP with %s, tagged %v, %s mode", name, tagged, mode), func(t *testing.T) {
					// When it forwards an aggregate with extension headers, Linux takes the first of them for the header of TCP, and
					// newer kernels (6.12.118) drop all aggregates of the connection if a part of the sequence number is no length.
					for range 8 {
						w := newWire(t, o)
						if w == nil {
							return
						}
						w.tcp(t, amount(4<<20), 150_000, test.options...)
						n := w.notForwarded(t)
						if n == 0 {
							w.expect(t, unix.IPPROTO_TCP)
							return
						}
						t.Logf("%d packets were not forwarded: once more", n)
					}
					t.Error("the kernel does not forward these packets")
				})
				if test.gsoMax == 0 {
					t.Run(fmt.Sprintf("UDP with %s, tagged %v, %s mode", name, tagged, mode), func(t *testing.T) {
						if w := newWire(t, o); w != nil && w.udp(t, amount(50), 1000, 40, test.options...) {
							w.expect(t, unix.IPPROTO_UDP)
						}
					})
				}
			}
		}
	}
}

// notForwarded returns how many packets the forwarder has dropped instead of sending them.
func (w *wire) notForwarded(t *testing.T) (dropped uint64) {
	t.Helper()
	w.forwarder.Do(func() {
		list, err := netlink.LinkList()
		check(t, err)
		for _, l := range list {
			dropped += l.Attrs().Statistics.TxDropped
		}
	})
	return dropped
}

// GRO of a node that forwards puts the datagrams of a flow into a list (rx-gro-list) or into one buffer (rx-udp-gro-forwarding).
// The next interface gets what has been put together.
func TestWireFramesThatGROHasPutTogether(t *testing.T) {
	for _, feature := range []string{"rx-gro-list", "rx-udp-gro-forwarding"} {
		for _, family := range []traffic.Family{traffic.IPv4, traffic.IPv6} {
			for _, mode := range wireModes {
				t.Run(fmt.Sprintf("%s, %v, %s mode", feature, family, mode), func(t *testing.T) {
					w := newWire(t, wireOptions{mode: mode, mtu: 1500, family: family, gro: feature})
					if w == nil {
						return
					}
					w.udp(t, amount(50), 1000, 40)
					w.expect(t, unix.IPPROTO_UDP)
					if mode == plan.Generic && w.arrived.packets > uint64(20*amount(50)) {
						t.Errorf("%v for %d frames: there was nothing to test", w.arrived, 40*amount(50))
					}
				})
			}
		}
	}
}

// An aggregate of SCTP has a size that is no size (GSO_BY_FRAGS), and the number of its packets.
func TestWireFramesOfSCTP(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if errors.Is(err, unix.EPROTONOSUPPORT) && os.Getenv(report.Guest) == "" {
		t.Logf("this kernel has no SCTP: %v", err)
		return
	}
	check(t, err)
	check(t, unix.Close(fd))
	for _, family := range []traffic.Family{traffic.IPv4, traffic.IPv6} {
		for _, mode := range wireModes {
			t.Run(fmt.Sprintf("%v, %s mode", family, mode), func(t *testing.T) {
				w := newWire(t, wireOptions{mode: mode, mtu: 1500, family: family})
				if w == nil {
					return
				}
				w.mirror(t)
				w.sctp(t, 15, 40_000)
				w.expect(t, unix.IPPROTO_SCTP)
			})
		}
	}
}

// mirror makes the forwarder the receiver, and the second link one on which the sender gives a copy of all that it sends: Linux
// panics when it forwards an aggregate of SCTP that generic XDP has seen, whatever the program does (docs/datapath.md).
func (w *wire) mirror(t *testing.T) {
	t.Helper()
	pair(t, w.sender, "m0", w.receiver, "m1")
	w.sender.Up(t, "m0")
	w.receiver.Up(t, "m1")
	w.receiver.Do(func() {
		var err error
		w.out, err = attachUnpinned(t, "m1", plan.Native)
		check(t, err)
	})
	w.sender.Do(func() {
		setFeatures(t, "m0", noAggregates)
		attrs := netlink.QdiscAttrs{LinkIndex: link(t, "s0").Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}
		check(t, netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: attrs}))
		copies := netlink.NewMirredAction(link(t, "m0").Attrs().Index)
		copies.MirredAction, copies.Action = netlink.TCA_EGRESS_MIRROR, netlink.TC_ACT_PIPE
		check(t, netlink.FilterAdd(&netlink.MatchAll{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: attrs.LinkIndex, Parent: netlink.HANDLE_MIN_EGRESS, Priority: 1, Protocol: unix.ETH_P_ALL},
			Actions:     []netlink.Action{copies},
		}))
	})
	family := netlink.FAMILY_V4
	if w.family == traffic.IPv6 {
		family = netlink.FAMILY_V6
	}
	w.forwarder.Do(func() {
		list, err := netlink.AddrList(link(t, "in0"), family)
		check(t, err)
		w.address = netip.AddrPortFrom(netip.MustParseAddr(list[0].IP.String()), 5000).String()
	})
	w.receiver = w.forwarder
	w.second = func() (s *netlink.LinkStatistics) {
		w.sender.Do(func() { s = link(t, "m0").Attrs().Statistics })
		return s
	}
}

// sctp sends messages of the size.
func (w *wire) sctp(t *testing.T, messages, size int) {
	t.Helper()
	end := netip.MustParseAddrPort(w.address)
	var address unix.Sockaddr = &unix.SockaddrInet4{Port: int(end.Port())}
	domain := unix.AF_INET
	if end.Addr().Is6() {
		address, domain = &unix.SockaddrInet6{Port: int(end.Port()), Addr: end.Addr().As16()}, unix.AF_INET6
	} else {
		address.(*unix.SockaddrInet4).Addr = end.Addr().As4()
	}
	socket := func() (fd int, err error) {
		fd, err = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		if err == nil {
			t.Cleanup(func() { unix.Close(fd) })
		}
		return fd, err
	}
	var listener int
	var err error
	w.receiver.Do(func() { listener, err = socket() })
	check(t, err)
	check(t, errors.Join(unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_RCVBUF, 100_000), unix.Bind(listener, address), unix.Listen(listener, 1)))
	received := make(chan error, 1)
	go func() {
		fd, _, err := unix.Accept(listener)
		if err != nil {
			received <- err
			return
		}
		defer unix.Close(fd)
		total := 0
		for buffer := make([]byte, 1<<16); ; {
			n, err := unix.Read(fd, buffer)
			if total += n; err != nil || n == 0 {
				if total != messages*size {
					err = fmt.Errorf("%d bytes were received: %w", total, err)
				}
				received <- err
				return
			}
		}
	}()
	var fd int
	w.sender.Do(func() {
		fd, err = socket()
		check(t, err)
		check(t, errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 20}), unix.Connect(fd, address)))
	})
	message := make([]byte, size)
	for range messages {
		_, err := unix.Write(fd, message)
		check(t, err)
	}
	check(t, errors.Join(unix.Shutdown(fd, unix.SHUT_WR), <-received))
}
