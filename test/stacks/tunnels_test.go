// SPDX-License-Identifier: Apache-2.0

package stacks

import (
	"errors"
	"fmt"
	"net"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
)

// tunnel is a kind of tunnel between sender and receiver.
type tunnel struct {
	outer    traffic.Family
	protocol uint8          // of the outer header
	inner    traffic.Family // of what is sent through it
	overhead int            // bytes in front of the inner IP header, without the outer Ethernet header
	link     func(attrs netlink.LinkAttrs, local, remote net.IP) netlink.Link
}

const greKey, greChecksum = 0x2000, 0x8000

var tunnels = map[string]tunnel{
	"VXLAN over IPv4": {traffic.IPv4, unix.IPPROTO_UDP, traffic.IPv4, 50, vxlan},
	"VXLAN over IPv6": {traffic.IPv6, unix.IPPROTO_UDP, traffic.IPv6, 70, vxlan},
	"VXLAN over IPv4 with a checksum": {traffic.IPv4, unix.IPPROTO_UDP, traffic.IPv6, 50, func(a netlink.LinkAttrs, local, remote net.IP) netlink.Link {
		l := vxlan(a, local, remote).(*netlink.Vxlan)
		l.UDPCSum = true
		return l
	}},
	"Geneve over IPv4":                        {traffic.IPv4, unix.IPPROTO_UDP, traffic.IPv4, 50, geneve},
	"Geneve over IPv6":                        {traffic.IPv6, unix.IPPROTO_UDP, traffic.IPv6, 70, geneve},
	"GRE over IPv4":                           {traffic.IPv4, unix.IPPROTO_GRE, traffic.IPv4, 24, gre(0)},
	"GRE over IPv4 with a key and a checksum": {traffic.IPv4, unix.IPPROTO_GRE, traffic.IPv4, 32, gre(greKey | greChecksum)},
	"GRE over IPv6":                           {traffic.IPv6, unix.IPPROTO_GRE, traffic.IPv6, 44, gre(0)},
	"Ethernet in GRE over IPv4": {traffic.IPv4, unix.IPPROTO_GRE, traffic.IPv6, 38, func(a netlink.LinkAttrs, local, remote net.IP) netlink.Link {
		return &netlink.Gretap{LinkAttrs: a, Local: local, Remote: remote, IKey: 7, OKey: 7, PMtuDisc: 1, Ttl: 64}
	}},
	"IPv4 in IPv4": {traffic.IPv4, unix.IPPROTO_IPIP, traffic.IPv4, 20, func(a netlink.LinkAttrs, local, remote net.IP) netlink.Link {
		return &netlink.Iptun{LinkAttrs: a, Local: local, Remote: remote, PMtuDisc: 1, Ttl: 64}
	}},
	"IPv6 in IPv4": {traffic.IPv4, unix.IPPROTO_IPV6, traffic.IPv6, 20, func(a netlink.LinkAttrs, local, remote net.IP) netlink.Link {
		return &netlink.Sittun{LinkAttrs: a, Local: local, Remote: remote, PMtuDisc: 1, Ttl: 64}
	}},
	"IPv4 in IPv6":                          {traffic.IPv6, unix.IPPROTO_IPIP, traffic.IPv4, 40, ip6tunnel(unix.IPPROTO_IPIP, 0x1)}, // IP6_TNL_F_IGN_ENCAP_LIMIT
	"IPv6 in IPv6 with destination options": {traffic.IPv6, unix.IPPROTO_IPV6, traffic.IPv6, 48, ip6tunnel(unix.IPPROTO_IPV6, 0)},
}

func vxlan(a netlink.LinkAttrs, local, remote net.IP) netlink.Link {
	return &netlink.Vxlan{LinkAttrs: a, VxlanId: 7, SrcAddr: local, Group: remote, Port: 4789}
}

func geneve(a netlink.LinkAttrs, _, remote net.IP) netlink.Link {
	return &netlink.Geneve{LinkAttrs: a, ID: 7, Remote: remote, Dport: 6081, UdpCsum: 1}
}

func gre(flags uint16) func(a netlink.LinkAttrs, local, remote net.IP) netlink.Link {
	return func(a netlink.LinkAttrs, local, remote net.IP) netlink.Link {
		l := &netlink.Gretun{LinkAttrs: a, Local: local, Remote: remote, IFlags: flags, OFlags: flags, PMtuDisc: 1, Ttl: 64}
		if flags&greKey != 0 {
			l.IKey, l.OKey = 7, 7
		}
		return l
	}
}

func ip6tunnel(protocol uint8, flags uint32) func(a netlink.LinkAttrs, local, remote net.IP) netlink.Link {
	return func(a netlink.LinkAttrs, local, remote net.IP) netlink.Link {
		return &netlink.Ip6tnl{LinkAttrs: a, Local: local, Remote: remote, Proto: protocol, EncapLimit: 4, Flags: flags, Ttl: 64}
	}
}

// enter makes a tunnel between sender and receiver, through which the traffic goes from then on. It returns false if the kernel has
// no such tunnels.
func (w *wire) enter(t *testing.T, kind tunnel) (possible bool) {
	t.Helper()
	family := netlink.FAMILY_V4
	if kind.outer == traffic.IPv6 {
		family = netlink.FAMILY_V6
	}
	prefix, bits := "10.4.0.%d", 24
	if kind.inner == traffic.IPv6 {
		prefix, bits = "fd04::%d", 64
	}
	type end struct {
		host  int
		outer net.IP
		inner net.IP
	}
	outer := func(name string) (ip net.IP) {
		list, err := netlink.AddrList(link(t, name), family)
		check(t, err)
		for _, a := range list {
			if !a.IP.IsLinkLocalUnicast() {
				ip = a.IP
			}
		}
		return ip
	}
	ends := []end{{host: 1}, {host: 2}}
	suffix := ""
	if w.tagged {
		suffix = ".7"
	}
	w.sender.Do(func() { ends[0].outer = outer("s0" + suffix) })
	w.receiver.Do(func() { ends[1].outer = outer("r0" + suffix) })
	for i := range ends {
		ends[i].inner = net.ParseIP(fmt.Sprintf(prefix, ends[i].host))
	}
	mac := func(host int) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, byte(host)} }
	for i, n := range []interface{ Do(func()) }{w.sender, w.receiver} {
		mine, far := ends[i], ends[1-i]
		var err error
		n.Do(func() {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "tunnel0"
			l := kind.link(attrs, mine.outer, far.outer)
			if err = netlink.LinkAdd(l); err != nil {
				return
			}
			l = link(t, "tunnel0")
			ethernet := len(l.Attrs().HardwareAddr) == 6 && l.Attrs().EncapType == "ether"
			if ethernet {
				check(t, netlink.LinkSetHardwareAddr(l, mac(mine.host)))
			}
			check(t, netlink.LinkSetMTU(l, w.mtu-kind.overhead))
			if kind.inner == traffic.IPv6 {
				check(t, os.WriteFile("/proc/sys/net/ipv6/conf/tunnel0/disable_ipv6", []byte("0"), 0))
			}
			check(t, netlink.LinkSetUp(l))
			check(t, netlink.AddrAdd(l, &netlink.Addr{IPNet: subnet(mine.inner, bits), Flags: unix.IFA_F_NODAD}))
			if ethernet {
				check(t, netlink.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: far.inner, HardwareAddr: mac(far.host), State: netlink.NUD_PERMANENT}))
			}
		})
		if errors.Is(err, unix.EOPNOTSUPP) && os.Getenv(report.Guest) == "" {
			t.Logf("this kernel has no such tunnel: %v", err)
			return false
		}
		check(t, err)
	}
	w.address = net.JoinHostPort(ends[1].inner.String(), "5000")
	return true
}

// The frames are of the class of the outer header, and repeat all headers.
func TestWireFramesOfTunnels(t *testing.T) {
	for name, kind := range tunnels {
		for _, mode := range wireModes {
			t.Run(fmt.Sprintf("%s, %s mode", name, mode), func(t *testing.T) {
				w := newWire(t, wireOptions{mode: mode, mtu: 1500, family: kind.outer})
				if w != nil && w.enter(t, kind) {
					w.tcp(t, amount(4<<20), 100_000)
					w.expect(t, kind.protocol)
				}
			})
		}
	}
	t.Run("tagged VXLAN", func(t *testing.T) {
		w := newWire(t, wireOptions{mode: plan.Generic, mtu: 1500, family: traffic.IPv4, tagged: true})
		if w == nil {
			return
		}
		kind := tunnels["VXLAN over IPv4"]
		if w.enter(t, kind) {
			w.tcp(t, amount(4<<20), 100_000)
			w.expect(t, kind.protocol)
		}
	})
}
