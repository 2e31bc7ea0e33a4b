// SPDX-License-Identifier: Apache-2.0

// Package reasons makes the situations in which an agent cannot count, or not natively, on real interfaces, and compares
// what it says with docs/troubleshooting.md.
package reasons

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/xdp-operator/xdp-operator/agent"
	"github.com/xdp-operator/xdp-operator/agent/datapath"
	"github.com/xdp-operator/xdp-operator/agent/links"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/bpffs"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
	"github.com/xdp-operator/xdp-operator/test/util/golden"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
	"github.com/xdp-operator/xdp-operator/test/util/scheme"
)

const document = "../../docs/troubleshooting.md"

// node is an agent in a network namespace with one interface that is asked for, eth0.
type node struct {
	t      *testing.T
	net    *netns.Namespace
	client client.Client
	agent  *agent.Agent
	links  *nodeLinks
}

// nodeLinks are the links of the node. Unless showVeth is set, the agent does not see that an interface is a veth, which then
// stands for a NIC: Auto tries native mode first.
type nodeLinks struct {
	links.Links
	showVeth bool
}

func (l *nodeLinks) List() ([]plan.Interface, error) {
	list, err := l.Links.List()
	for i := range list {
		if list[i].Kind == "veth" && !l.showVeth {
			list[i].Kind, list[i].Driver = "", "nic"
		}
	}
	return list, err
}

// newNode makes one. modes are what the counters ask for, the oldest first.
func newNode(t *testing.T, modes ...v1alpha1.AttachMode) *node {
	t.Helper()
	return newNodeOn(t, bpffs.Mount(t), modes...)
}

// newNodeOn is newNode for a bpffs, which need not be mounted.
func newNodeOn(t *testing.T, bpffs string, modes ...v1alpha1.AttachMode) *node {
	t.Helper()
	state := &v1alpha1.XDPNodeState{ObjectMeta: metav1.ObjectMeta{Name: "n1", Generation: 1}}
	state.Spec.ReportInterval.Duration = time.Second
	for i, mode := range modes {
		name := fmt.Sprintf("counter-%d", i+1)
		state.Spec.Counters = append(state.Spec.Counters, v1alpha1.NodeCounter{
			Name: name, UID: types.UID(name), Generation: 1, Names: []string{"eth0"}, AttachMode: mode,
		})
	}
	n := &node{t: t, net: netns.New(t), links: &nodeLinks{}}
	var d *datapath.Datapath
	n.net.Do(func() {
		var err error
		if d, err = datapath.Open(bpffs, "boot"); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { _ = d.Close() })
	n.client = fake.NewClientBuilder().WithScheme(scheme.New()).WithStatusSubresource(state).WithObjects(state).Build()
	n.agent = &agent.Agent{Client: n.client, Node: "n1", Info: v1alpha1.AgentInfo{BootID: "boot"}, Datapath: d, Links: n.links, Clock: clock.RealClock{}}
	return n
}

// pass makes passes, as they are due, until one has nothing to follow it up at once, and returns how long the next may
// wait.
func (n *node) pass() (wait time.Duration) {
	n.t.Helper()
	for range 50 {
		n.net.Do(func() {
			result, err := n.agent.Reconcile(n.t.Context(), ctrl.Request{})
			if err != nil {
				n.t.Fatal(err)
			}
			wait = result.RequeueAfter
		})
		if wait > 20*time.Millisecond {
			return wait
		}
		time.Sleep(wait)
	}
	n.t.Fatal("fifty passes did not settle the node")
	return 0
}

func (n *node) status() v1alpha1.XDPNodeStateStatus {
	n.t.Helper()
	state := &v1alpha1.XDPNodeState{}
	if err := n.client.Get(n.t.Context(), types.NamespacedName{Name: "n1"}, state); err != nil {
		n.t.Fatal(err)
	}
	return state.Status
}

// do runs fn with an interface in the namespace.
func (n *node) do(name string, fn func(netlink.Link) error) {
	n.t.Helper()
	n.net.Do(func() {
		l, err := netlink.LinkByName(name)
		if err != nil {
			n.t.Fatal(err)
		}
		if err := fn(l); err != nil {
			n.t.Fatal(err)
		}
	})
}

// foreign attaches a program of somebody else, or with nil takes it away. flags are XDP_FLAGS_*.
func (n *node) foreign(name string, program *ebpf.Program, flags int) {
	n.t.Helper()
	fd := -1
	if program != nil {
		fd = program.FD()
	}
	n.do(name, func(l netlink.Link) error { return netlink.LinkSetXdpFdWithFlags(l, fd, flags) })
}

func passes(t *testing.T) *ebpf.Program {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreign", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2 /* XDP_PASS */), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return program
}

// fewQueues makes eth0 one that receives with one queue, of two that it may have, what its peer sends with two.
func (n *node) fewQueues() {
	n.t.Helper()
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", NumTxQueues: 2, NumRxQueues: 2}, PeerName: "peer", PeerNumTxQueues: 2, PeerNumRxQueues: 2}
	n.net.Add(n.t, pair)
	n.queues("eth0", 1)
	n.queues("peer", 2)
	n.net.Up(n.t, "eth0")
	n.net.Up(n.t, "peer")
	n.net.Ready(n.t, "eth0", "peer")
}

func (n *node) queues(name string, count uint32) {
	n.t.Helper()
	n.net.Do(func() {
		tool, err := ethtool.NewEthtool()
		if err != nil {
			n.t.Fatal(err)
		}
		defer tool.Close()
		channels, err := tool.GetChannels(name)
		if err != nil {
			n.t.Fatal(err)
		}
		channels.RxCount, channels.TxCount = count, count
		if _, err := tool.SetChannels(name, channels); err != nil {
			n.t.Fatal(err)
		}
	})
}

const (
	auto    = v1alpha1.AttachAuto
	native  = v1alpha1.AttachNative
	generic = v1alpha1.AttachGeneric
)

// situations are in the order of the table. veth has native XDP and stands for a NIC, a bridge has no native XDP.
var situations = []struct {
	name  string
	modes []v1alpha1.AttachMode // asked for, the oldest first
	make  func(*node)
}{
	{"the driver has native XDP", []v1alpha1.AttachMode{auto}, veth},
	{"the same, with jumbo frames (Linux 5.18)", []v1alpha1.AttachMode{auto}, func(n *node) {
		veth(n)
		for _, end := range []string{"eth0", "peer"} {
			n.do(end, func(l netlink.Link) error { return netlink.LinkSetMTU(l, 9000) })
		}
	}},
	{"it is a veth, on which generic mode costs less", []v1alpha1.AttachMode{auto}, shown(veth)},
	{"it is a veth, on which generic mode costs less", []v1alpha1.AttachMode{native}, shown(veth)},
	{"the driver has no native XDP", []v1alpha1.AttachMode{auto}, bridge},
	{"the driver has no native XDP", []v1alpha1.AttachMode{native}, bridge},
	{"the driver has no native XDP", []v1alpha1.AttachMode{generic}, bridge},
	{"the driver wants more queues", []v1alpha1.AttachMode{auto}, (*node).fewQueues},
	{"the driver wants more queues", []v1alpha1.AttachMode{native}, (*node).fewQueues},
	{"another program is attached natively", []v1alpha1.AttachMode{auto}, held(unix.XDP_FLAGS_DRV_MODE)},
	{"another program is attached natively", []v1alpha1.AttachMode{generic}, held(unix.XDP_FLAGS_DRV_MODE)},
	{"another program is attached generically", []v1alpha1.AttachMode{auto}, held(unix.XDP_FLAGS_SKB_MODE)},
	{"another program is attached generically", []v1alpha1.AttachMode{native}, held(unix.XDP_FLAGS_SKB_MODE)},
	{"the bridge of which it is a port has a program", []v1alpha1.AttachMode{auto}, func(n *node) {
		veth(n)
		n.net.Bridge(n.t, "br0")
		n.do("br0", func(br0 netlink.Link) error {
			eth0, err := netlink.LinkByName("eth0")
			return errors.Join(err, netlink.LinkSetMaster(eth0, br0))
		})
		n.foreign("br0", passes(n.t), unix.XDP_FLAGS_SKB_MODE)
	}},
	{"IPsec tunnels end on the node", []v1alpha1.AttachMode{auto}, tunnel(veth)},
	{"IPsec tunnels end on the node", []v1alpha1.AttachMode{generic}, tunnel(veth)},
	{"IPsec tunnels end on the node, and it is a veth", []v1alpha1.AttachMode{auto}, tunnel(shown(veth))},
	{"IPsec tunnels end on the node, and the driver has no native XDP", []v1alpha1.AttachMode{auto}, tunnel(bridge)},
	{"two counters agree", []v1alpha1.AttachMode{auto, native}, veth},
	{"two counters disagree", []v1alpha1.AttachMode{native, generic}, veth},
	{"two counters disagree", []v1alpha1.AttachMode{auto, generic}, veth},
	{"the older one attained generic only", []v1alpha1.AttachMode{auto, native}, bridge},
	{"the younger one takes what there is", []v1alpha1.AttachMode{generic, auto}, veth},
}

func veth(n *node) { n.net.Veth(n.t, "eth0", "peer") }

// shown makes interfaces that the agent sees to be veths.
func shown(interfaces func(*node)) func(*node) {
	return func(n *node) {
		interfaces(n)
		n.links.showVeth = true
	}
}

func bridge(n *node) { n.net.Bridge(n.t, "eth0") }

// tunnel adds the policy of an IPsec tunnel to the node.
func tunnel(interfaces func(*node)) func(*node) {
	return func(n *node) {
		interfaces(n)
		n.net.Do(func() {
			err := netlink.XfrmPolicyAdd(&netlink.XfrmPolicy{
				Src: &net.IPNet{IP: net.IPv4(10, 1, 0, 0).To4(), Mask: net.CIDRMask(16, 32)},
				Dst: &net.IPNet{IP: net.IPv4(10, 2, 0, 0).To4(), Mask: net.CIDRMask(16, 32)},
				Dir: netlink.XFRM_DIR_IN,
				Tmpls: []netlink.XfrmPolicyTmpl{{
					Src: net.IPv4(192, 0, 2, 1), Dst: net.IPv4(192, 0, 2, 2), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL,
				}},
			})
			if err != nil {
				n.t.Fatal(err)
			}
		})
	}
}

func held(flags int) func(*node) {
	return func(n *node) {
		veth(n)
		n.foreign("eth0", passes(n.t), flags)
	}
}

func TestTheTableOfSituations(t *testing.T) {
	var table strings.Builder
	table.WriteString("| situation | asked for | state | mode | reason |\n|---|---|---|---|---|\n")
	for _, s := range situations {
		n := newNode(t, s.modes...)
		s.make(n)
		n.pass()
		for _, i := range n.status().Interfaces {
			asked := string(i.RequestedMode)
			if len(s.modes) > 1 { // whom the line is about
				var who []string
				for _, uid := range i.Counters {
					who = append(who, string(s.modes[uid[len(uid)-1]-'1']))
				}
				asked = strings.Join(who, ", then ")
			}
			fmt.Fprintf(&table, "| %s | %s | %s | %s | %s |\n", s.name, asked, i.State, i.Mode, i.Reason)
			if (i.Reason == "") != (i.Message == "") {
				t.Errorf("%s, %v: reason %q, message %q", s.name, s.modes, i.Reason, i.Message)
			}
			t.Logf("%s, %v: %s", s.name, s.modes, i.Message)
		}
	}
	golden.CheckPart(t, document, "<!-- situations -->\n", "<!-- end of situations -->", table.String())
}

// A program that holds the hook is named, and the interface is counted within a second of its going.
func TestTheHookIsTakenUpWhenItBecomesFree(t *testing.T) {
	for name, flags := range map[string]int{"native": unix.XDP_FLAGS_DRV_MODE, "generic": unix.XDP_FLAGS_SKB_MODE} {
		n := newNode(t, auto)
		held(flags)(n)
		if wait := n.pass(); wait >= time.Second {
			t.Errorf("%s: the agent looks again after %s only", name, wait)
		}
		n.foreign("eth0", nil, flags)
		n.pass()
		if i := n.status().Interfaces; len(i) != 1 || i[0].State != v1alpha1.InterfaceAttached || i[0].Mode != native {
			t.Errorf("%s: %+v", name, i)
		}
	}
}

// An earlier version attached veths in native mode. They stay so, and every packet is counted.
func TestAutoChangesNoModeOfAVethThatIsCounted(t *testing.T) {
	n := newNode(t, auto)
	veth(n)
	n.expect(native, "", 0)
	n.send(5)
	n.links.showVeth = true
	n.expect(native, v1alpha1.ReasonGenericIsCheaper, 5)
	n.send(5)
	n.expect(native, v1alpha1.ReasonGenericIsCheaper, 10)
}

// Auto goes back to native mode once it can be had, and what was counted before adds up with what is counted then.
func TestAutoGoesBackToNative(t *testing.T) {
	n := newNode(t, auto)
	n.fewQueues()
	n.pass()
	n.expect(generic, v1alpha1.ReasonNotEnoughQueues, 0)
	n.send(5)
	n.expect(generic, v1alpha1.ReasonNotEnoughQueues, 5)
	attached := n.status().Interfaces[0].Map

	n.queues("eth0", 2)
	n.expect(native, "", 5)
	if now := n.status().Interfaces[0].Map; now == attached {
		t.Errorf("map %d still", now)
	}
	n.send(5)
	n.expect(native, "", 10)
}

// expect makes passes until eth0 is in the mode, for the reason, and the account of the first counter has that many packets.
func (n *node) expect(mode v1alpha1.AttachMode, reason string, packets int64) {
	n.t.Helper()
	var got string
	want := fmt.Sprintf("%s %s %d", mode, reason, packets)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		n.pass()
		status := n.status()
		var counted int64
		if len(status.Accounts) > 0 {
			counted = int64(status.Accounts[0].Sum().Packets)
		}
		if got = fmt.Sprintf("%s %s %d", status.Interfaces[0].Mode, status.Interfaces[0].Reason, counted); got == want {
			return
		}
	}
	n.t.Fatalf("%s, want %s", got, want)
}

// send sends packets to eth0.
func (n *node) send(packets int) {
	n.t.Helper()
	n.do("peer", func(peer netlink.Link) error {
		s, err := frames.NewSender(peer.Attrs().Index)
		if err != nil {
			return err
		}
		return errors.Join(s.Send(frames.Common()[0].Data, packets), s.Close())
	})
}
