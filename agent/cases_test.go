// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// everyEthernet is a counter of eth0 and eth1.
func everyEthernet(uid string, mode v1alpha1.AttachMode) v1alpha1.NodeCounter {
	return v1alpha1.NodeCounter{Name: uid, UID: types.UID(uid), Generation: 1, Names: []string{"eth*"}, AttachMode: mode}
}

func TestAnInterfaceThatIsRefusedDoesNotStopTheOthers(t *testing.T) {
	for name, refusal := range map[string]error{
		"by a driver, which is not asked again at once": plan.ErrNativeUnsupported,
		"since another program is attached":             plan.ErrHookInUse,
	} {
		n := newNode(t, everyEthernet("a", ""))
		n.refuse["eth0"], n.refuse["eth1"] = refusal, plan.ErrHookInUse
		n.expectSteps("read", "save")
		n.expectSteps("attach eth0 refused", "attach eth1 refused", "read", "save")
		delete(n.refuse, "eth1")
		steps, _, err := n.pass()
		if err != nil || !slices.Contains(steps, "attach eth1") {
			t.Errorf("%s: the pass took the steps %q, %v", name, steps, err)
		}
		steps, _, err = n.pass() // eth0 is refused alone
		if err != nil || slices.Contains(steps, "attach eth1") {
			t.Errorf("%s: the last pass took the steps %q, %v", name, steps, err)
		}
	}
}

func TestADriverThatRefusedIsAskedAgainAfterItsIntervalOrAnotherMTU(t *testing.T) {
	asked := func(n *node) bool {
		t.Helper()
		steps, _, err := n.pass()
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(steps, "attach eth0 refused")
	}
	n := newNode(t, counter("a"))
	n.refuse["eth0"] = plan.ErrMTUTooLarge
	asked(n)
	if !asked(n) {
		t.Fatal("eth0 was not tried")
	}
	if n.clock.Step(driverRetryInterval - 1); asked(n) {
		t.Error("asked again before the interval has passed")
	}
	if n.clock.Step(1); !asked(n) {
		t.Error("not asked again when the interval has passed")
	}
	if asked(n) {
		t.Error("asked twice")
	}
	if n.interfaces[1].MTU = 1400; !asked(n) {
		t.Error("not asked again with another MTU")
	}
	if n.clock.Step(driverRetryInterval / 2); asked(n) {
		t.Error("asked again before the interval since the last time has passed")
	}
}

func TestRoutesAreReadOnlyIfACounterNeedsThem(t *testing.T) {
	for name, test := range map[string]struct {
		counter v1alpha1.NodeCounter
		want    bool
	}{
		"primary":                            {counter("a"), true},
		"a glob, which can mean primary too": {everyEthernet("a", ""), true},
		"a name":                             {named("a", "eth0"), false},
		"a counter that is inactive":         {v1alpha1.NodeCounter{Name: "a", UID: "a", Generation: 1, Primary: true, Inactive: true}, false},
	} {
		n := newNode(t, test.counter)
		n.settle()
		if got := n.routeReads > 0; got != test.want {
			t.Errorf("%s: routes were read %d times", name, n.routeReads)
		}
	}
}

func TestControlCharactersInNamesAreEscapedInMessages(t *testing.T) {
	const name, escaped = "a\x1b[31m", `a\x1b[31m`
	n := newNode(t, named("a", "a*"))
	n.interfaces = append(n.interfaces, plan.Interface{Name: name, Index: 9}, plan.Interface{Name: "above", Index: 10, Parent: 9})
	n.refuse[name] = fmt.Errorf("attach %s: %w", name, plan.ErrHookInUse)
	for range 2 {
		if _, _, err := n.pass(); err != nil {
			t.Fatal(err)
		}
	}
	s := n.state().Status
	if len(s.Interfaces) != 2 || s.Interfaces[0].Name != name {
		t.Fatalf("the interfaces are %+v", s.Interfaces)
	}
	for _, message := range []string{s.Interfaces[0].Message, s.Interfaces[1].Message, s.Conditions[0].Message} {
		if !strings.Contains(message, escaped) || strings.Contains(message, "\x1b") {
			t.Errorf("the message is %q", message)
		}
	}
}

// refusingDriver has generic mode only, and attaches so where native mode was refused.
type refusingDriver struct {
	*node
	refused error

	countsAggregates bool
}

func (d refusingDriver) Attach(a plan.Attachment) error {
	if err := d.node.Attach(a); err != nil {
		return err
	}
	d.attached[len(d.attached)-1].Refused = d.refused
	d.attached[len(d.attached)-1].CountsAggregates = d.countsAggregates
	return nil
}

func TestWhyNativeModeWasRefusedIsReportedForAutoOnly(t *testing.T) {
	for mode, want := range map[v1alpha1.AttachMode]string{"": v1alpha1.ReasonMTUTooLarge, v1alpha1.AttachGeneric: ""} {
		c := counter("a")
		c.AttachMode = mode
		n := newNode(t, c)
		n.generic = true
		n.agent.Datapath = refusingDriver{node: n, refused: plan.ErrMTUTooLarge}
		n.settle()
		i := n.state().Status.Interfaces[0]
		if i.State != v1alpha1.InterfaceAttached || i.Mode != v1alpha1.AttachGeneric || i.Reason != want {
			t.Errorf("with attachMode %q the interface is reported as %+v, want reason %q", mode, i, want)
		}
	}
}

// Only generic mode sees decrypted packets, so only there is it asked for, and reported.
func TestWhatIsNotExactIsReportedInGenericModeOnly(t *testing.T) {
	const twice = "packets that the node decrypts from IPsec tunnels here are counted twice: encrypted, and decrypted"
	const remedy = "; remedy: use attachMode Native if the driver supports it, or count the interface below; on the node: ip xfrm policy"
	const one = "several frames that arrive as one aggregate are counted as one packet"
	const oneRemedy = "; remedy: use attachMode Auto, or on a tap interface Generic; generic mode needs a kernel with BTF that is not locked down, " +
		"best Linux 6.2 or later; on the node: cat /sys/kernel/security/lockdown"
	for name, tc := range map[string]struct {
		mode             v1alpha1.AttachMode
		generic, tunnels bool
		aggregates       bool
		refused          error
		asked            bool
		reason, message  string
	}{
		"native mode, and tunnels":     {tunnels: true},
		"generic mode, and no tunnels": {mode: v1alpha1.AttachGeneric, generic: true, asked: true},
		"generic mode, and tunnels": {
			mode: v1alpha1.AttachGeneric, generic: true, tunnels: true, asked: true,
			reason: v1alpha1.ReasonDecryptedPacketsCounted, message: twice + remedy,
		},
		"generic mode because native mode was refused, and no tunnels": {
			generic: true, refused: plan.ErrMTUTooLarge, asked: true, reason: v1alpha1.ReasonMTUTooLarge,
			message: "counted in generic mode, because native mode was refused: the MTU is too large for native XDP; the MTU is 1500; " +
				"native mode is tried again when the MTU is lowered",
		},
		"generic mode because native mode was refused, and tunnels": {
			generic: true, refused: plan.ErrMTUTooLarge, tunnels: true, asked: true, reason: v1alpha1.ReasonDecryptedPacketsCounted,
			message: twice + "; counted in generic mode, because native mode was refused: the MTU is too large for native XDP; the MTU is 1500; " +
				"native mode is tried again when the MTU is lowered" + remedy,
		},
		"generic mode, and aggregates count as one packet": {
			mode: v1alpha1.AttachGeneric, generic: true, aggregates: true, asked: true, reason: v1alpha1.ReasonAggregatedFrames,
			message: one + oneRemedy,
		},
		"generic mode because native mode was refused, and aggregates count as one packet": {
			generic: true, refused: plan.ErrNativeUnsupported, aggregates: true, asked: true, reason: v1alpha1.ReasonAggregatedFrames,
			message: one + "; counted in generic mode, because native mode was refused: the driver has no native XDP" + oneRemedy,
		},
		"generic mode, aggregates and tunnels": {
			mode: v1alpha1.AttachGeneric, generic: true, aggregates: true, tunnels: true, asked: true,
			reason: v1alpha1.ReasonDecryptedPacketsCounted, message: twice + "; " + one + remedy,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := counter("a")
			c.AttachMode = tc.mode
			n := newNode(t, c)
			n.generic, n.tunnels = tc.generic, tc.tunnels
			n.agent.Datapath = refusingDriver{node: n, refused: tc.refused, countsAggregates: tc.aggregates}
			n.settle()
			i := n.state().Status.Interfaces[0]
			if i.State != v1alpha1.InterfaceAttached || i.Reason != tc.reason || i.Message != tc.message {
				t.Errorf("%s %q %q, want %q %q", i.State, i.Reason, i.Message, tc.reason, tc.message)
			}
			if n.asked != tc.asked {
				t.Errorf("the agent has asked for tunnels: %t, want %t", n.asked, tc.asked)
			}
		})
	}
}

// Auto takes generic mode where it costs less, if it is exact there, and changes no mode of an interface that is counted.
func TestModeThatAutoChooses(t *testing.T) {
	const cost = "in native mode: the other end loses segmentation offload, so large segments are cut into frames: more than half of bulk TCP"
	const segments = "several frames that arrive as one aggregate are counted as one packet"
	const remedy = "; remedy: use attachMode Auto, or on a tap interface Generic; generic mode needs a kernel with BTF that is not locked down, " +
		"best Linux 6.2 or later; on the node: cat /sys/kernel/security/lockdown"
	for name, tc := range map[string]struct {
		driver                        string
		mode                          v1alpha1.AttachMode
		before                        v1alpha1.AttachMode // what was asked for before
		noWireFrames, tunnels, shared bool
		sctp                          bool
		want                          v1alpha1.AttachMode
		reason, message               string
	}{
		"a NIC": {driver: "ixgbe", want: v1alpha1.AttachNative},
		"a veth": {
			driver: "veth", want: v1alpha1.AttachGeneric, reason: v1alpha1.ReasonGenericIsCheaper, message: cost,
		},
		"a veth, and Native is asked for":                                             {driver: "veth", mode: v1alpha1.AttachNative, want: v1alpha1.AttachNative},
		"a veth, and Generic is asked for":                                            {driver: "veth", mode: v1alpha1.AttachGeneric, want: v1alpha1.AttachGeneric},
		"a veth, where generic mode counts aggregates as one packet":                  {driver: "veth", noWireFrames: true, want: v1alpha1.AttachNative},
		"a veth, where generic mode counts packets of tunnels twice":                  {driver: "veth", tunnels: true, want: v1alpha1.AttachNative},
		"a veth, and SCTP, aggregates of which make the kernel panic in generic mode": {driver: "veth", sctp: true, want: v1alpha1.AttachNative},
		"a veth, by a dispatcher":                                                     {driver: "veth", shared: true, want: v1alpha1.AttachNative},
		"a veth that is attached in native mode": {
			driver: "veth", before: v1alpha1.AttachNative, want: v1alpha1.AttachNative, reason: v1alpha1.ReasonGenericIsCheaper,
			message: cost + "; it was attached in native mode before, and Auto changes no mode while it counts",
		},
		"a veth that is attached in generic mode": {
			driver: "veth", before: v1alpha1.AttachGeneric, want: v1alpha1.AttachGeneric, reason: v1alpha1.ReasonGenericIsCheaper, message: cost,
		},
		"a tap, whose driver passes large segments to a program for native mode": {
			driver: "tun", mode: v1alpha1.AttachNative, want: v1alpha1.AttachNative, reason: v1alpha1.ReasonAggregatedFrames, message: segments + remedy,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := counter("a")
			if c.AttachMode = tc.mode; tc.before != "" {
				c.AttachMode = tc.before
			}
			if tc.shared {
				c.Coexistence = v1alpha1.CoexistenceDispatcher
			}
			n := newNode(t, c)
			n.interfaces[1].Driver, n.noWireFrames, n.tunnels, n.sctp = tc.driver, tc.noWireFrames, tc.tunnels, tc.sctp
			n.generic = c.AttachMode == v1alpha1.AttachGeneric
			n.settle()
			if tc.before != "" {
				n.generic = false
				n.edit(func(state *v1alpha1.XDPNodeState) { state.Spec.Counters[0].AttachMode = tc.mode })
				n.steps = nil
				n.settle()
				if slices.ContainsFunc(n.steps, func(step string) bool { return strings.HasPrefix(step, "detach") }) {
					t.Errorf("the mode was changed: %q", n.steps)
				}
			}
			i := n.state().Status.Interfaces[0]
			if i.State != v1alpha1.InterfaceAttached || i.Mode != tc.want || i.Reason != tc.reason || i.Message != tc.message {
				t.Errorf("%s %s %q %q, want %s %q %q", i.State, i.Mode, i.Reason, i.Message, tc.want, tc.reason, tc.message)
			}
		})
	}
}

// The kernel loads SCTP when the first process uses it.
func TestAutoLeavesGenericModeWhenSCTPIsLoaded(t *testing.T) {
	n := newNode(t, counter("a"))
	n.interfaces[1].Driver = "veth"
	n.settle()
	for _, want := range []v1alpha1.AttachMode{v1alpha1.AttachGeneric, v1alpha1.AttachNative, v1alpha1.AttachNative} {
		if i := n.state().Status.Interfaces[0]; i.Mode != want {
			t.Errorf("with SCTP %t the mode is %s, want %s", n.sctp, i.Mode, want)
		}
		n.sctp = !n.sctp // and it stays native when SCTP is unloaded
		n.settle()
	}
}

// A failure of several counters is one entry if interface, requested mode and message are the same.
func TestFailuresAreGroupedByInterfaceModeAndMessage(t *testing.T) {
	tunnels := func(uid string, mode v1alpha1.AttachMode) v1alpha1.NodeCounter {
		return v1alpha1.NodeCounter{Name: uid, UID: types.UID(uid), Generation: 1, Names: []string{"eth*", "tun0"}, AttachMode: mode}
	}
	n := newNode(t, everyEthernet("a", v1alpha1.AttachNative), tunnels("b", v1alpha1.AttachGeneric), tunnels("c", v1alpha1.AttachGeneric), tunnels("d", v1alpha1.AttachNative))
	n.interfaces = append(n.interfaces, plan.Interface{Name: "tun0", Index: 4, NoEthernet: true})
	n.settle()
	type entry struct {
		Name          string
		State         v1alpha1.InterfaceState
		RequestedMode v1alpha1.AttachMode
		Reason        string
		Counters      []types.UID
	}
	var got []entry
	for _, i := range n.state().Status.Interfaces {
		got = append(got, entry{i.Name, i.State, i.RequestedMode, i.Reason, i.Counters})
	}
	want := []entry{
		{"eth0", v1alpha1.InterfaceAttached, v1alpha1.AttachNative, "", []types.UID{"a", "d"}},
		{"eth0", v1alpha1.InterfaceFailed, v1alpha1.AttachGeneric, v1alpha1.ReasonModeConflict, []types.UID{"b", "c"}},
		{"eth1", v1alpha1.InterfaceAttached, v1alpha1.AttachNative, "", []types.UID{"a", "d"}},
		{"eth1", v1alpha1.InterfaceFailed, v1alpha1.AttachGeneric, v1alpha1.ReasonModeConflict, []types.UID{"b", "c"}},
		{"tun0", v1alpha1.InterfaceFailed, v1alpha1.AttachGeneric, v1alpha1.ReasonNoEthernet, []types.UID{"b", "c"}},
		{"tun0", v1alpha1.InterfaceFailed, v1alpha1.AttachNative, v1alpha1.ReasonNoEthernet, []types.UID{"d"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("interfaces (-want +got):\n%s", diff)
	}
}
