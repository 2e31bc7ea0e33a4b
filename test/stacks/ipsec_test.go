// SPDX-License-Identifier: Apache-2.0

package stacks

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/datapath"
	"github.com/xdp-operator/xdp-operator/agent/links"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

// The addresses of a tunnel from a gateway to a node: of the wire, and of the packets in the tunnel.
var (
	gatewayOutside, nodeOutside = net.IPv4(192, 0, 2, 1), net.IPv4(192, 0, 2, 2)
	gatewayInside, nodeInside   = net.IPv4(10, 9, 1, 1), net.IPv4(10, 9, 2, 1)
)

func host(ip net.IP) *net.IPNet { return &net.IPNet{IP: ip.To4(), Mask: net.CIDRMask(32, 32)} }

// tunnelEnd makes eth0 and lo of one end, in the namespace of the calling thread, and a tunnel through which the gateway sends to
// the node. The packets are not really encrypted. What is counted is the same.
func tunnelEnd(outside, inside, far, via net.IP, dir netlink.Dir) error {
	var errs []error
	for name, ip := range map[string]*net.IPNet{"lo": host(inside), "eth0": {IP: outside.To4(), Mask: net.CIDRMask(24, 32)}} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		errs = append(errs, netlink.LinkSetUp(l), netlink.AddrAdd(l, &netlink.Addr{IPNet: ip}))
	}
	errs = append(errs,
		os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("0"), 0),
		netlink.RouteAdd(&netlink.Route{Dst: host(far), Gw: via, Src: inside}),
		netlink.XfrmPolicyAdd(&netlink.XfrmPolicy{
			Src: host(gatewayInside), Dst: host(nodeInside), Dir: dir,
			Tmpls: []netlink.XfrmPolicyTmpl{{
				Src: gatewayOutside, Dst: nodeOutside, Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Reqid: 1,
			}},
		}))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return netlink.XfrmStateAdd(&netlink.XfrmState{
		Src: gatewayOutside, Dst: nodeOutside, Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL, Spi: 0x100, Reqid: 1,
		Auth: &netlink.XfrmStateAlgo{Name: "digest_null"}, Crypt: &netlink.XfrmStateAlgo{Name: "ecb(cipher_null)"},
	})
}

// In generic mode the kernel passes a packet of a tunnel to the interface again after it was decrypted, with an Ethernet header
// as if it had arrived so. So it counts twice, which the agent reports. In native mode each frame counts once.
func TestPacketsOfAnIPsecTunnel(t *testing.T) {
	const sent = 10
	for _, mode := range []plan.Mode{plan.Native, plan.Generic} {
		t.Run(string(mode), func(t *testing.T) {
			node, gateway := netns.New(t), netns.New(t)
			node.Add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(gateway.File().Fd()))})
			u, err := datapath.OpenUnpinned("boot")
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			var receiver *net.UDPConn
			node.Do(func() {
				var eth0 netlink.Link
				if eth0, err = netlink.LinkByName("eth0"); err != nil {
					t.Fatal(err)
				}
				if (links.Links{}).DecryptsTunnels() {
					t.Error("a node without IPsec decrypts tunnels")
				}
				if err := u.Attach(plan.Attachment{Index: eth0.Attrs().Index, Name: "eth0", Mode: mode}); err != nil {
					t.Fatal(err)
				}
				if err = tunnelEnd(nodeOutside, nodeInside, gatewayInside, gatewayOutside, netlink.XFRM_DIR_IN); err != nil {
					return
				}
				if !(links.Links{}).DecryptsTunnels() {
					t.Error("the node's tunnel is not seen")
				}
				receiver, err = net.ListenUDP("udp4", &net.UDPAddr{IP: nodeInside, Port: 5000})
			})
			if errors.Is(err, unix.EPROTONOSUPPORT) && os.Getenv(report.Guest) == "" {
				t.Log("this kernel has no ESP")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer receiver.Close()
			if err := receiver.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			gateway.Do(func() {
				if err := tunnelEnd(gatewayOutside, gatewayInside, nodeInside, nodeOutside, netlink.XFRM_DIR_OUT); err != nil {
					t.Fatal(err)
				}
				sender, err := net.DialUDP("udp4", &net.UDPAddr{IP: gatewayInside}, &net.UDPAddr{IP: nodeInside, Port: 5000})
				if err != nil {
					t.Fatal(err)
				}
				defer sender.Close()
				for range sent {
					if _, err := sender.Write(make([]byte, 100)); err != nil {
						t.Fatal(err)
					}
					if n, err := receiver.Read(make([]byte, 1000)); n != 100 || err != nil {
						t.Fatalf("through the tunnel came %d bytes, %v", n, err)
					}
				}
			})

			twice := uint64(0)
			if mode == plan.Generic {
				twice = sent
			}
			// What the kernel sends by itself (IPv6) can arrive between the two readings.
			var totals traffic.Totals
			for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
				readings, err := u.Read()
				if err != nil {
					t.Fatal(err)
				}
				totals = readings[0].Totals
				if received := rxPackets(t, node, "eth0"); totals.Sum().Packets == received+twice {
					break
				} else if time.Now().After(deadline) {
					t.Fatalf("%d packets are counted, rx_packets is %d, and %d of them count twice", totals.Sum().Packets, received, twice)
				}
			}
			got := map[string]uint64{}
			for class, counts := range totals.NonZero() {
				if class == traffic.IP(traffic.IPv4, 50) || class == traffic.IP(traffic.IPv4, 17) {
					got[class.String()] = counts.Packets
				}
			}
			want := map[string]uint64{"IPv4/ESP": sent}
			if mode == plan.Generic {
				want["IPv4/UDP"] = sent
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// rxPackets returns how many packets the interface has received.
func rxPackets(t *testing.T, n *netns.Namespace, name string) (packets uint64) {
	t.Helper()
	n.Do(func() {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		packets = l.Attrs().Statistics.RxPackets
	})
	return packets
}
