// SPDX-License-Identifier: Apache-2.0

package stacks

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/datapath"
	"github.com/xdp-operator/xdp-operator/agent/links"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
	"github.com/xdp-operator/xdp-operator/test/util/quiet"
)

// stack is interfaces upon one another, at the bottom one end of each of one or two veth pairs.
type stack struct {
	bottom []string
	upper  string
	make   func() error                       // in the namespace of the calling thread
	frame  func(inner []byte) ([]byte, error) // what is sent for a frame that the upper interface receives; nil: itself
}

// peers are the other ends of eth0 and eth1.
var peers = map[string]string{"eth0": "p0", "eth1": "p1"}

func pairs(names ...string) error {
	for _, name := range names {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peers[name]}); err != nil {
			return err
		}
	}
	return nil
}

func up(names ...string) error {
	for _, name := range names {
		if _, err := quiet.Up(name); err != nil {
			return err
		}
		if peer := peers[name]; peer != "" {
			if _, err := quiet.Up(peer); err != nil {
				return err
			}
		}
	}
	return nil
}

// members makes an interface that has these for its members or ports.
func members(master netlink.Link, names ...string) error {
	if err := errors.Join(pairs(names...), netlink.LinkAdd(master)); err != nil {
		return err
	}
	for _, name := range names {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMasterByIndex(l, master.Attrs().Index); err != nil {
			return fmt.Errorf("put %s into %s: %w", name, master.Attrs().Name, err)
		}
	}
	return errors.Join(up(append(names, master.Attrs().Name)...), quiet.Ready("p0", master.Attrs().Name))
}

func bond(mode netlink.BondMode) stack {
	return stack{bottom: []string{"eth0", "eth1"}, upper: "bond0", make: func() error {
		b := netlink.NewLinkBond(netlink.LinkAttrs{Name: "bond0"})
		b.Mode, b.Miimon = mode, 10
		return members(b, "eth0", "eth1")
	}}
}

// upon makes an interface upon eth0, which has an address.
func upon(upper string, link func(attrs netlink.LinkAttrs, parent int) netlink.Link) stack {
	return stack{bottom: []string{"eth0"}, upper: upper, make: func() error {
		if err := errors.Join(pairs("eth0"), up("eth0"), quiet.Ready("p0")); err != nil {
			return err
		}
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		address, err := netlink.ParseAddr("192.0.2.2/24")
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = upper
		return errors.Join(netlink.AddrAdd(eth0, address), netlink.LinkAdd(link(attrs, eth0.Attrs().Index)), up(upper))
	}}
}

func tag(inner []byte) ([]byte, error) {
	return slices.Concat(inner[:12], []byte{0x81, 0, 0, 100}, inner[12:]), nil
}

func encapsulate(inner []byte) ([]byte, error) {
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return nil, err
	}
	buffer := gopacket.NewSerializeBuffer()
	err = gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: inner[6:12], DstMAC: eth0.Attrs().HardwareAddr, EthernetType: layers.EthernetTypeIPv4},
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: []byte{192, 0, 2, 1}, DstIP: []byte{192, 0, 2, 2}},
		&udp{}, &layers.VXLAN{ValidIDFlag: true, VNI: 5}, gopacket.Payload(inner))
	return buffer.Bytes(), err
}

// udp is a header to the port of VXLAN without a checksum.
type udp struct{ layers.UDP }

func (*udp) SerializeTo(b gopacket.SerializeBuffer, _ gopacket.SerializeOptions) error {
	header := layers.UDP{SrcPort: 40000, DstPort: 4789}
	return header.SerializeTo(b, gopacket.SerializeOptions{FixLengths: true})
}

var stacks = map[string]stack{
	"bridge": {bottom: []string{"eth0", "eth1"}, upper: "br0", make: func() error {
		return members(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}, "eth0", "eth1")
	}},
	"bond, active-backup": bond(netlink.BOND_MODE_ACTIVE_BACKUP),
	"bond, balance-rr":    bond(netlink.BOND_MODE_BALANCE_RR),
	"bond, balance-alb":   bond(netlink.BOND_MODE_BALANCE_ALB), // whose driver has no native XDP
	"bond, 802.3ad":       bond(netlink.BOND_MODE_802_3AD),
	"team": {bottom: []string{"eth0", "eth1"}, upper: "team0", make: func() error {
		return members(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: "team0"}, LinkType: "team"}, "eth0", "eth1")
	}},
	"vrf": {bottom: []string{"eth0"}, upper: "vrf0", make: func() error {
		return members(&netlink.Vrf{LinkAttrs: netlink.LinkAttrs{Name: "vrf0"}, Table: 10}, "eth0")
	}},
	"macvlan": upon("mac0", func(attrs netlink.LinkAttrs, parent int) netlink.Link {
		attrs.ParentIndex = parent
		return &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}
	}),
	"macvtap": upon("mac0", func(attrs netlink.LinkAttrs, parent int) netlink.Link {
		attrs.ParentIndex = parent
		return &netlink.Macvtap{Macvlan: netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}}
	}),
	"ipvlan": upon("ipv0", func(attrs netlink.LinkAttrs, parent int) netlink.Link {
		attrs.ParentIndex = parent
		return &netlink.IPVlan{LinkAttrs: attrs, Mode: netlink.IPVLAN_MODE_L2}
	}),
	"vlan": with(tag, upon("eth0.100", func(attrs netlink.LinkAttrs, parent int) netlink.Link {
		attrs.ParentIndex = parent
		return &netlink.Vlan{LinkAttrs: attrs, VlanId: 100}
	})),
	"vxlan": with(encapsulate, upon("vx0", func(attrs netlink.LinkAttrs, parent int) netlink.Link {
		return &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 5, VtepDevIndex: parent, Port: 4789, Learning: true}
	})),
}

func with(frame func([]byte) ([]byte, error), s stack) stack {
	s.frame = frame
	return s
}

// built makes the stack in a namespace, or returns nil if this kernel was built without what it is of. The kernels of
// command kernels have everything.
func (s stack) built(t *testing.T) *netns.Namespace {
	t.Helper()
	n := netns.New(t)
	var err error
	n.Do(func() { err = s.make() })
	if errors.Is(err, unix.EOPNOTSUPP) && os.Getenv(report.Guest) == "" {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// counting is what was made of a selection.
type counting struct {
	counted, elsewhere []string // names, sorted
	packets            uint64
	native             bool // all of them are attached in native mode
}

// count attaches what the selections ask for, sends n frames each to the upper interface, to all and to nobody through
// every bottom, and returns what was counted once nothing more comes.
func (s stack) count(t *testing.T, net *netns.Namespace, n int, selections ...plan.Selection) (c counting) {
	t.Helper()
	net.Do(func() {
		interfaces, err := links.Links{}.List()
		if err != nil {
			t.Fatal(err)
		}
		want, _, rejected := plan.Desired(selections, interfaces, nil)
		for _, d := range rejected {
			at := slices.IndexFunc(interfaces, func(i plan.Interface) bool { return i.Index == d.Index })
			c.elsewhere = append(c.elsewhere, interfaces[at].Name)
		}
		u, err := datapath.OpenUnpinned("boot")
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		for _, w := range want {
			if err := u.Attach(w); err != nil {
				t.Fatal(err)
			}
			c.counted = append(c.counted, w.Name)
		}
		if interfaces, err = (links.Links{}).List(); err != nil {
			t.Fatal(err)
		}
		c.native = !slices.ContainsFunc(interfaces, func(i plan.Interface) bool {
			return slices.Contains(c.counted, i.Name) && i.Hook.Mode != plan.Native
		})
		upper, err := netlink.LinkByName(s.upper)
		if err != nil {
			t.Fatal(err)
		}
		for _, bottom := range s.bottom {
			for _, to := range [][]byte{upper.Attrs().HardwareAddr, {255, 255, 255, 255, 255, 255}, {2, 0, 0, 0, 0, 9}} {
				s.send(t, peers[bottom], to, n)
			}
		}
		c.packets = settled(t, u)
	})
	slices.Sort(c.counted)
	slices.Sort(c.elsewhere)
	return c
}

func (s stack) send(t *testing.T, from string, to []byte, n int) {
	t.Helper()
	frame := bytes.Clone(frames.Common()[0].Data)
	copy(frame, to)
	peer, err := netlink.LinkByName(from)
	if err == nil && s.frame != nil {
		frame, err = s.frame(frame)
	}
	if err != nil {
		t.Fatal(err)
	}
	sender, err := frames.NewSender(peer.Attrs().Index)
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	if err := sender.Send(frame, n); err != nil {
		t.Fatal(err)
	}
}

// settled returns the packets of all attachments once they grow no more.
func settled(t *testing.T, u *datapath.Unpinned) uint64 {
	t.Helper()
	const still = 200 * time.Millisecond
	var sum uint64
	for since := time.Now(); time.Since(since) < still; time.Sleep(5 * time.Millisecond) {
		readings, err := u.Read()
		if err != nil {
			t.Fatal(err)
		}
		var now uint64
		for _, r := range readings {
			now += r.Totals.Sum().Packets
		}
		if now != sum {
			sum, since = now, time.Now()
		}
	}
	return sum
}

const each = 20 // frames of a kind

func TestWhateverIsStackedAFrameIsCountedOnce(t *testing.T) {
	for name, s := range stacks {
		if s.built(t) == nil {
			t.Logf("this kernel has no %s", name)
			continue
		}
		sent := uint64(3 * each * len(s.bottom))
		for _, mode := range []plan.Mode{plan.Auto, plan.Native, plan.Generic} {
			t.Run(fmt.Sprintf("%s, %s", name, mode), func(t *testing.T) {
				got := s.count(t, s.built(t), each, plan.Selection{Counter: "c", Names: []string{"eth*", s.upper}, Mode: mode})
				want := counting{counted: s.bottom, elsewhere: []string{s.upper}, packets: sent, native: mode == plan.Native} // at the bottom are veths, on which Auto chooses generic mode
				if diff := cmp.Diff(want, got, cmp.AllowUnexported(counting{})); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestBondIsCountedAtItsMembers(t *testing.T) {
	for name, s := range stacks {
		if len(s.bottom) == 1 || s.upper == "br0" {
			continue
		}
		if s.built(t) == nil {
			t.Logf("this kernel has no %s", name)
			continue
		}
		for _, names := range [][]string{{s.upper}, {"eth1", s.upper}} {
			t.Run(fmt.Sprint(name, names), func(t *testing.T) {
				got := s.count(t, s.built(t), each, plan.Selection{Counter: "c", Names: names, Mode: plan.Auto})
				want := counting{counted: s.bottom, elsewhere: []string{s.upper}, packets: uint64(3 * each * len(s.bottom))}
				if diff := cmp.Diff(want, got, cmp.AllowUnexported(counting{})); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	}
	s := stacks["bridge"]
	got := s.count(t, s.built(t), each, plan.Selection{Counter: "c", Names: []string{"eth1", s.upper}, Mode: plan.Auto})
	want := counting{counted: []string{"eth1"}, elsewhere: []string{"br0"}, packets: 3 * each}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(counting{})); diff != "" {
		t.Errorf("of a bridge only what comes in through the port (-want +got):\n%s", diff)
	}
}

// Alone, an upper interface is counted for what is for it.
func TestAnUpperInterfaceAlone(t *testing.T) {
	for name, want := range map[string]uint64{
		"bridge":  2 * 2 * each, // to it and to all
		"macvlan": 2 * each,
		"macvtap": 2 * each,
		"ipvlan":  each, // it takes by IP address, and has none
		"vlan":    3 * each,
		"vxlan":   3 * each,
		"vrf":     0, // what comes in never passes it
	} {
		s := stacks[name]
		n := s.built(t)
		if n == nil {
			t.Logf("this kernel has no %s", name)
			continue
		}
		got := s.count(t, n, each, plan.Selection{Counter: "c", Names: []string{s.upper}, Mode: plan.Auto})
		if diff := cmp.Diff(counting{counted: []string{s.upper}, packets: want, native: got.native}, got, cmp.AllowUnexported(counting{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Two counters may want two layers of one stack: each gets its own.
func TestTwoLayersForTwoCounters(t *testing.T) {
	for name, want := range map[string]uint64{
		"bridge":  2*2*each + 3*each,
		"macvlan": 2*each + 3*each,
		"vlan":    3*each + 3*each,
	} {
		s := stacks[name]
		n := s.built(t)
		if n == nil {
			t.Logf("this kernel has no %s", name)
			continue
		}
		bottom := s.bottom[len(s.bottom)-1]
		got := s.count(t, n, each, plan.Selection{Counter: "a", Names: []string{s.upper}, Mode: plan.Auto}, plan.Selection{Counter: "b", Names: []string{bottom}, Mode: plan.Auto})
		if diff := cmp.Diff(counting{counted: []string{s.upper, bottom}, packets: want}, got, cmp.AllowUnexported(counting{}), cmpopts.SortSlices(strings.Compare)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Since Linux 5.15 a program is refused below an interface that has one. It is no other's error.
func TestAProgramBelowAnother(t *testing.T) {
	s := stacks["bridge"]
	s.built(t).Do(func() {
		u, err := datapath.OpenUnpinned("boot")
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		attach := func(name string) error {
			l, err := netlink.LinkByName(name)
			if err != nil {
				t.Fatal(err)
			}
			return u.Attach(plan.Attachment{Index: l.Attrs().Index, Name: name, Mode: plan.Auto})
		}
		if err := attach("br0"); err != nil {
			t.Fatal(err)
		}
		if err := attach("eth0"); err != nil && !errors.Is(err, plan.ErrUpperHasProgram) {
			t.Errorf("below br0: %v", err)
		}
	})
}

// What a tun carries begins with the IP header, like a packet that the node itself sends to a group.
func TestWhatHasNoEthernetHeaderIsNotCounted(t *testing.T) {
	netns.New(t).Do(func() {
		tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun0"}, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_NO_PI, Queues: 1}
		if err := errors.Join(netlink.LinkAdd(tun), up("tun0")); err != nil {
			t.Fatal(err)
		}
		defer tun.Fds[0].Close()
		interfaces, err := links.Links{}.List()
		if err != nil {
			t.Fatal(err)
		}
		want, _, rejected := plan.Desired([]plan.Selection{{Counter: "c", Names: []string{"tun0"}, Mode: plan.Auto}}, interfaces, nil)
		if len(want) != 0 || len(rejected) != 1 || !errors.Is(rejected[0].Why, plan.ErrNoEthernet) {
			t.Errorf("wanted %v, rejected %v", want, rejected)
		}

		u, err := datapath.OpenUnpinned("boot")
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		if err := u.Attach(plan.Attachment{Index: tun.Index, Name: "tun0", Mode: plan.Generic}); err != nil {
			t.Fatal(err)
		}
		f := frames.Common()[0]
		if _, err := tun.Fds[0].Write(f.Data[14:]); err != nil {
			t.Fatal(err)
		}
		settled(t, u)
		readings, err := u.Read()
		if err != nil {
			t.Fatal(err)
		}
		if sum := readings[0].Totals.Sum(); sum.Packets != 0 {
			t.Errorf("attached all the same it counts %+v", sum)
		}
	})
}
