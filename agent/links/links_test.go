// SPDX-License-Identifier: Apache-2.0

package links

import (
	"errors"
	"net"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

// list returns the interfaces by name, with Primary.
func list(t *testing.T, n *netns.Namespace) map[string]plan.Interface {
	t.Helper()
	byName := map[string]plan.Interface{}
	n.Do(func() {
		interfaces, errList := Links{}.List()
		primary, errPrimary := Links{}.Primary()
		if err := errors.Join(errList, errPrimary); err != nil {
			t.Fatal(err)
		}
		for _, i := range interfaces {
			i.Primary = primary[i.Index]
			byName[i.Name] = i
		}
	})
	return byName
}

func TestList(t *testing.T) {
	n := netns.New(t)
	const long, umlaut = "fifteen-bytes-x", "größe0"
	index, peer := n.Veth(t, long, umlaut)
	n.Add(t, &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: "eth0.100", ParentIndex: index, MTU: 1400}, Mode: netlink.MACVLAN_MODE_BRIDGE})
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br-é"}}
	n.Add(t, bridge) // and it stays down
	n.Add(t, &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx0"}, VxlanId: 5, VtepDevIndex: index})
	n.Add(t, &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun0"}, Mode: netlink.TUNTAP_MODE_TUN, NonPersist: false})
	n.Add(t, &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tap0"}, Mode: netlink.TUNTAP_MODE_TAP})
	pod := netns.New(t)
	n.Add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "to-pod"}, PeerName: "eth0"})
	n.Do(func() {
		port, errP := netlink.LinkByName(umlaut)
		end, errE := netlink.LinkByName("eth0")
		if err := errors.Join(errP, errE); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(netlink.LinkSetMasterByIndex(port, bridge.Index), netlink.LinkSetNsFd(end, int(pod.File().Fd())),
			netlink.LinkAddAltName(port, "another-name-of-more-than-15-bytes"), netlink.LinkAddAltName(port, "größe1")); err != nil {
			t.Fatal(err)
		}
	})

	want := map[string]plan.Interface{
		"lo":       {Name: "lo", Index: 1, MTU: 65536},
		long:       {Name: long, Index: index, Kind: "veth", Driver: "veth", MTU: 1500},
		umlaut:     {Name: umlaut, AltNames: []string{"another-name-of-more-than-15-bytes", "größe1"}, Index: peer, Kind: "veth", Driver: "veth", MTU: 1500, Master: bridge.Index},
		"eth0.100": {Name: "eth0.100", Kind: "macvlan", Driver: "macvlan", MTU: 1400, Parent: index},
		"br-é":     {Name: "br-é", Kind: "bridge", Driver: "bridge", MTU: 1500},
		"vx0":      {Name: "vx0", Kind: "vxlan", Driver: "vxlan", MTU: 1450, Parent: index},
		"tun0":     {Name: "tun0", Kind: "tuntap", Driver: "tun", MTU: 1500, NoEthernet: true},
		"tap0":     {Name: "tap0", Kind: "tuntap", Driver: "tun", MTU: 1500},
		"to-pod":   {Name: "to-pod", Kind: "veth", Driver: "veth", MTU: 1500, PeerAway: true},
	}
	got := list(t, n)
	for _, fallback := range []string{"gre0", "gretap0", "erspan0", "ip6gre0", "ip6tnl0", "ip6_vti0", "ip_vti0", "sit0", "tunl0"} {
		delete(got, fallback) // the kernel makes them in every namespace if the module is loaded
	}
	for name, w := range want {
		if w.Index == 0 { // whatever it was given
			w.Index = got[name].Index
			want[name] = w
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, want := range map[string]plan.Mode{"tap0": plan.Generic, long: plan.Generic, "to-pod": plan.Generic, "br-é": "", "eth0.100": ""} {
		if first := plan.FirstOf(got[name]); first != want {
			t.Errorf("Auto tries %q first on %s, want %q", first, name, want)
		}
	}
	inPod := list(t, pod)["eth0"]
	if inPod.Parent != 0 || !inPod.PeerAway {
		t.Errorf("the pod's end is made upon an interface of another namespace: %+v", inPod)
	}
}

// ipv6On takes back what package netns does for silence.
func ipv6On(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
}

// object makes a nexthop object for IPv4, which package netlink does not know.
func object(t *testing.T, id uint32, attributes ...*nl.RtAttr) {
	t.Helper()
	changeObject(t, unix.RTM_NEWNEXTHOP, unix.NLM_F_CREATE|unix.NLM_F_EXCL, id, attributes...)
}

func replaceObject(t *testing.T, id uint32, attributes ...*nl.RtAttr) {
	t.Helper()
	changeObject(t, unix.RTM_NEWNEXTHOP, unix.NLM_F_REPLACE, id, attributes...)
}

func removeObject(t *testing.T, id uint32) {
	t.Helper()
	changeObject(t, unix.RTM_DELNEXTHOP, 0, id)
}

func changeObject(t *testing.T, kind, flags int, id uint32, attributes ...*nl.RtAttr) {
	t.Helper()
	request := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	header := nhmsg{0, 0, 0, 0, 0, 0, 0, 0}
	if kind == unix.RTM_NEWNEXTHOP {
		header = nhmsg{unix.AF_INET, 0, unix.RTPROT_STATIC, 0, 0, 0, 0, 0}
		if attributes[0].Type == unix.NHA_GROUP {
			header[0] = unix.AF_UNSPEC
		}
	}
	request.AddData(header)
	for _, a := range append(attributes, nl.NewRtAttr(unix.NHA_ID, nl.Uint32Attr(id))) {
		request.AddData(a)
	}
	if _, err := request.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		t.Fatalf("request %d for nexthop object %d: %v", kind, id, err)
	}
}

// nhmsg is struct nhmsg of include/uapi/linux/nexthop.h: family, scope, protocol, nothing, flags.
type nhmsg []byte

func (m nhmsg) Len() int          { return len(m) }
func (m nhmsg) Serialize() []byte { return m }

func oif(l netlink.Link) *nl.RtAttr {
	return nl.NewRtAttr(unix.NHA_OIF, nl.Uint32Attr(uint32(l.Attrs().Index)))
}

func gateway(a, b, c, d byte) *nl.RtAttr { return nl.NewRtAttr(unix.NHA_GATEWAY, []byte{a, b, c, d}) }

// routeBy adds an IPv4 default route by a nexthop object.
func routeBy(t *testing.T, object uint32) {
	t.Helper()
	request := nl.NewNetlinkRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_ACK)
	request.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_INET, Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_STATIC, Type: unix.RTN_UNICAST}})
	request.AddData(nl.NewRtAttr(rtaNexthopID, nl.Uint32Attr(object)))
	if _, err := request.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		t.Fatalf("add a default route by nexthop object %d: %v", object, err)
	}
}

func TestPrimary(t *testing.T) {
	address := func(t *testing.T, l netlink.Link, cidr string) {
		t.Helper()
		a, err := netlink.ParseAddr(cidr)
		if err != nil {
			t.Fatal(err)
		}
		a.Flags = 2 // IFA_F_NODAD: to be used at once
		if err := netlink.AddrAdd(l, a); err != nil {
			t.Fatal(err)
		}
	}
	route := func(t *testing.T, r *netlink.Route) {
		t.Helper()
		if err := netlink.RouteAdd(r); err != nil {
			t.Fatalf("add route %v: %v", r, err)
		}
	}
	rule := func(t *testing.T, family int, change func(*netlink.Rule)) {
		t.Helper()
		r := netlink.NewRule()
		r.Family = family
		change(r)
		if err := netlink.RuleAdd(r); err != nil {
			t.Fatalf("add rule %v: %v", r, err)
		}
	}
	_, all4, _ := net.ParseCIDR("0.0.0.0/0")
	_, all6, _ := net.ParseCIDR("::/0")
	_, half, _ := net.ParseCIDR("128.0.0.0/1")

	for name, test := range map[string]struct {
		add  func(t *testing.T, a, b netlink.Link)
		want []string
	}{
		"no default route": {
			add: func(t *testing.T, a, b netlink.Link) {
				route(t, &netlink.Route{LinkIndex: a.Attrs().Index, Dst: half, Scope: netlink.SCOPE_LINK})
			},
		},
		"an IPv4 default route": {
			add: func(t *testing.T, a, b netlink.Link) {
				route(t, &netlink.Route{LinkIndex: a.Attrs().Index, Dst: all4, Gw: net.IPv4(192, 0, 2, 254)})
			},
			want: []string{"a"},
		},
		"an IPv4 default route without gateway": {
			add: func(t *testing.T, a, b netlink.Link) {
				route(t, &netlink.Route{LinkIndex: b.Attrs().Index, Dst: all4, Scope: netlink.SCOPE_LINK})
			},
			want: []string{"b"},
		},
		"an IPv6 default route": {
			add: func(t *testing.T, a, b netlink.Link) {
				route(t, &netlink.Route{LinkIndex: b.Attrs().Index, Dst: all6, Gw: net.ParseIP("2001:db8:b::fe")})
			},
			want: []string{"b"},
		},
		"one of each": {
			add: func(t *testing.T, a, b netlink.Link) {
				route(t, &netlink.Route{LinkIndex: a.Attrs().Index, Dst: all4, Gw: net.IPv4(192, 0, 2, 254)})
				route(t, &netlink.Route{LinkIndex: b.Attrs().Index, Dst: all6, Gw: net.ParseIP("2001:db8:b::fe")})
			},
			want: []string{"a", "b"},
		},
		"two with different metrics": {
			add: func(t *testing.T, a, b netlink.Link) {
				route(t, &netlink.Route{LinkIndex: a.Attrs().Index, Dst: all4, Gw: net.IPv4(192, 0, 2, 254), Priority: 100})
				route(t, &netlink.Route{LinkIndex: b.Attrs().Index, Dst: all4, Gw: net.IPv4(198, 51, 100, 254), Priority: 200})
			},
			want: []string{"a", "b"},
		},
		"one with two next hops": {
			add: func(t *testing.T, a, b netlink.Link) {
				route(t, &netlink.Route{Dst: all4, MultiPath: []*netlink.NexthopInfo{
					{LinkIndex: a.Attrs().Index, Gw: net.IPv4(192, 0, 2, 254)},
					{LinkIndex: b.Attrs().Index, Gw: net.IPv4(198, 51, 100, 254)},
				}})
			},
			want: []string{"a", "b"},
		},
		"an IPv6 one with two next hops": {
			add: func(t *testing.T, a, b netlink.Link) {
				route(t, &netlink.Route{Dst: all6, MultiPath: []*netlink.NexthopInfo{
					{LinkIndex: a.Attrs().Index, Gw: net.ParseIP("2001:db8:a::fe")},
					{LinkIndex: b.Attrs().Index, Gw: net.ParseIP("2001:db8:b::fe")},
				}})
			},
			want: []string{"a", "b"},
		},
		"an unreachable default route": {
			add: func(t *testing.T, a, b netlink.Link) {
				route(t, &netlink.Route{Dst: all4, Type: 7}) // RTN_UNREACHABLE
				route(t, &netlink.Route{Dst: all6, Type: 7})
			},
		},
		"a default route of a table that a rule leads everything to": {
			add: func(t *testing.T, a, b netlink.Link) {
				route(t, &netlink.Route{LinkIndex: a.Attrs().Index, Dst: all4, Gw: net.IPv4(192, 0, 2, 254), Table: 100})
				route(t, &netlink.Route{LinkIndex: b.Attrs().Index, Dst: all6, Gw: net.ParseIP("2001:db8:b::fe"), Table: 1000})
				rule(t, netlink.FAMILY_V4, func(r *netlink.Rule) { r.Table = 100 })
				rule(t, netlink.FAMILY_V6, func(r *netlink.Rule) { r.Table = 1000 })
			},
			want: []string{"a", "b"},
		},
		"those of tables for some packets only": {
			add: func(t *testing.T, a, b netlink.Link) {
				for table := 100; table < 105; table++ {
					route(t, &netlink.Route{LinkIndex: a.Attrs().Index, Dst: all4, Gw: net.IPv4(192, 0, 2, 254), Table: table})
				}
				_, pods, _ := net.ParseCIDR("10.0.0.0/8")
				rule(t, netlink.FAMILY_V4, func(r *netlink.Rule) { r.Table, r.Src = 100, pods })
				rule(t, netlink.FAMILY_V4, func(r *netlink.Rule) { r.Table, r.Mark = 101, 7 })
				rule(t, netlink.FAMILY_V4, func(r *netlink.Rule) { r.Table, r.IifName = 102, "lo" })
				rule(t, netlink.FAMILY_V4, func(r *netlink.Rule) { r.Table, r.Mark, r.Invert = 103, 0xca6c, true }) // as wg-quick does it
				rule(t, netlink.FAMILY_V4, func(r *netlink.Rule) { r.Table, r.SuppressPrefixlen = 104, 0 })
			},
		},
		"a nexthop object": {
			add: func(t *testing.T, a, b netlink.Link) {
				object(t, 5, oif(a), gateway(192, 0, 2, 254))
				routeBy(t, 5)
			},
			want: []string{"a"},
		},
		"a group of nexthop objects that the route does not spell out": {
			add: func(t *testing.T, a, b netlink.Link) {
				if err := reportObjectsOnly(); err != nil {
					t.Fatal(err)
				}
				object(t, 5, oif(a), gateway(192, 0, 2, 254))
				object(t, 6, oif(b), gateway(198, 51, 100, 254))
				object(t, 7, nl.NewRtAttr(unix.NHA_GROUP, groupOf(5, 6)))
				routeBy(t, 7)
			},
			want: []string{"a", "b"},
		},
		"a nexthop object that is a black hole": {
			add: func(t *testing.T, a, b netlink.Link) {
				lo, err := netlink.LinkByName("lo")
				if err := errors.Join(err, netlink.LinkSetUp(lo)); err != nil {
					t.Fatal(err)
				}
				object(t, 5, nl.NewRtAttr(unix.NHA_BLACKHOLE, nil))
				routeBy(t, 5)
			},
		},
		"a default route of another table": {
			add: func(t *testing.T, a, b netlink.Link) {
				route(t, &netlink.Route{LinkIndex: a.Attrs().Index, Dst: all4, Gw: net.IPv4(192, 0, 2, 254), Table: 100})
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := netns.New(t)
			n.Veth(t, "a", "b")
			n.Do(func() {
				a, errA := netlink.LinkByName("a")
				b, errB := netlink.LinkByName("b")
				if errA != nil || errB != nil {
					t.Fatal(errA, errB)
				}
				ipv6On(t, "a")
				ipv6On(t, "b")
				address(t, a, "192.0.2.1/24")
				address(t, a, "2001:db8:a::1/64")
				address(t, b, "198.51.100.1/24")
				address(t, b, "2001:db8:b::1/64")
				test.add(t, a, b)
			})
			var got []string
			for _, name := range []string{"a", "b", "lo"} {
				if list(t, n)[name].Primary {
					got = append(got, name)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("primary (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHook(t *testing.T) {
	for name, test := range map[string]struct {
		flags link.XDPAttachFlags
		mode  plan.Mode
	}{
		"native":  {link.XDPDriverMode, plan.Native},
		"generic": {link.XDPGenericMode, plan.Generic},
	} {
		t.Run(name, func(t *testing.T) {
			n := netns.New(t)
			index, _ := n.Veth(t, "a", "b")
			program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
				Type: ebpf.XDP, License: "GPL",
				Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
			})
			if err != nil {
				t.Fatalf("load a program (needs root): %v", err)
			}
			defer program.Close()
			var l link.Link
			n.Do(func() {
				if l, err = link.AttachXDP(link.XDPOptions{Program: program, Interface: index, Flags: test.flags}); err != nil {
					t.Fatal(err)
				}
			})
			info, err := program.Info()
			if err != nil {
				t.Fatal(err)
			}
			id, _ := info.ID()
			got := list(t, n)
			if diff := cmp.Diff(plan.Hook{Program: uint32(id), Mode: test.mode}, got["a"].Hook); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(plan.Hook{}, got["b"].Hook); diff != "" {
				t.Errorf("hook of the other end:\n%s", diff)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
