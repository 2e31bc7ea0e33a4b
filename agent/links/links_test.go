package links

import (
	"net"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/test/netns"
)

func list(t *testing.T, n *netns.Namespace) map[string]plan.Interface {
	t.Helper()
	byName := map[string]plan.Interface{}
	n.Do(func() {
		interfaces, err := Links{}.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range interfaces {
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
	n.Add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br-é"}}) // and it stays down

	want := map[string]plan.Interface{
		"lo":       {Name: "lo", Index: 1, MTU: 65536},
		long:       {Name: long, Index: index, Kind: "veth", Driver: "veth", MTU: 1500},
		umlaut:     {Name: umlaut, Index: peer, Kind: "veth", Driver: "veth", MTU: 1500},
		"eth0.100": {Name: "eth0.100", Kind: "macvlan", Driver: "macvlan", MTU: 1400},
		"br-é":     {Name: "br-é", Kind: "bridge", Driver: "bridge", MTU: 1500},
	}
	got := list(t, n)
	for name, w := range want {
		if w.Index == 0 { // whatever it was given
			w.Index = got[name].Index
			want[name] = w
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// ipv6On takes back what package netns does for silence.
func ipv6On(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("0"), 0); err != nil {
		t.Fatal(err)
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
