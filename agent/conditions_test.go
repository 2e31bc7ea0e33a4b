// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

func TestWhatTheReadyConditionSays(t *testing.T) {
	none := counter("a")
	none.Primary, none.Names = false, []string{"wlan*"}
	inactive := counter("a")
	inactive.Inactive = true
	generic := counter("b")
	generic.AttachMode = v1alpha1.AttachGeneric
	for name, tc := range map[string]struct {
		counters []v1alpha1.NodeCounter
		want     string
	}{
		"all is well":       {[]v1alpha1.NodeCounter{counter("a")}, "True AllInterfacesAttached: 1 interface is being counted"},
		"nothing matches":   {[]v1alpha1.NodeCounter{none}, "False NoInterfacesMatched: no interface of this node is selected"},
		"nothing is active": {[]v1alpha1.NodeCounter{inactive}, "True Suspended: no active XDPCounter selects this node; the totals are kept"},
		"a younger counter wants another mode": {
			[]v1alpha1.NodeCounter{counter("a"), generic},
			"False PartiallyAttached: 1 of 2 interfaces are not counted: eth0 (ModeConflict)",
		},
	} {
		n := newNode(t, tc.counters...)
		n.settle()
		c := n.state().Status.Conditions[0]
		if got := fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestWhatIsSelectedAndNotCounted(t *testing.T) {
	named := func(name string, mode v1alpha1.AttachMode, names ...string) v1alpha1.NodeCounter {
		c := counter(name)
		c.Primary, c.Names, c.AttachMode = false, names, mode
		return c
	}
	const auto, native = v1alpha1.AttachMode(""), v1alpha1.AttachNative
	for name, tc := range map[string]struct {
		counters []v1alpha1.NodeCounter
		want     []string
		ready    string
	}{
		"a VLAN whose parent is selected too is skipped, for all who select both": {
			[]v1alpha1.NodeCounter{named("a", auto, "eth*"), named("b", auto, "eth*"), named("c", auto, "eth0.5")},
			[]string{
				"eth0 Attached Generic [a b]", "eth0.5 Attached Generic [c]",
				"eth0.5 Skipped CountedElsewhere [a b]: its frames are counted at eth0", "eth1 Attached Generic [a b]",
			},
			"True AllInterfacesAttached: 3 interfaces are being counted",
		},
		"a bond is counted at its member, which is not selected itself": {
			[]v1alpha1.NodeCounter{named("a", auto, "bond0")},
			[]string{"bond0 Skipped CountedElsewhere [a]: its frames are counted at port0", "port0 Attached Generic [a]"},
			"True AllInterfacesAttached: 1 interface is being counted",
		},
		"a bond without members is skipped": {
			[]v1alpha1.NodeCounter{named("a", auto, "bond1")},
			[]string{"bond1 Skipped NoMembers [a]: it has no members, through which it would receive frames; members are counted as soon as they join"},
			"False NoInterfacesMatched: only interfaces without members are selected: bond1",
		},
		"what has no Ethernet header fails": {
			[]v1alpha1.NodeCounter{named("a", auto, "eth1", "wg0")},
			[]string{
				"eth1 Attached Generic [a]",
				"wg0 Failed NoEthernet [a]: its packets have no Ethernet header; remedy: exclude the interface, and select the one that carries its packets",
			},
			"False PartiallyAttached: 1 of 2 interfaces are not counted: wg0 (NoEthernet)",
		},
		"Native after an older Auto that attained generic is a mode conflict": {
			[]v1alpha1.NodeCounter{named("a", auto, "eth1"), named("b", native, "eth1")},
			[]string{
				"eth1 Attached Generic [a]",
				"eth1 Failed ModeConflict [b]: an older XDPCounter has this interface in Generic mode; remedy: use attachMode Auto or the same mode, or exclude the interface",
			},
			"False PartiallyAttached: 1 of 2 interfaces are not counted: eth1 (ModeConflict)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, tc.counters...)
			n.generic = true
			n.interfaces = append(n.interfaces, plan.Interface{Name: "eth0.5", Index: 4, Parent: 2}, plan.Interface{Name: "wg0", Index: 5, NoEthernet: true},
				plan.Interface{Name: "bond0", Index: 6, Kind: "bond"}, plan.Interface{Name: "port0", Index: 7, Master: 6}, plan.Interface{Name: "bond1", Index: 8, Kind: "bond"})
			n.settle()
			var got []string
			for _, i := range n.state().Status.Interfaces {
				line := fmt.Sprint(i.Name, " ", i.State, " ", i.Mode, i.Reason, " ", i.Counters)
				if i.Message != "" {
					line += ": " + i.Message
				}
				got = append(got, line)
			}
			slices.Sort(got)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			c := n.state().Status.Conditions[0]
			if ready := fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message); ready != tc.ready {
				t.Errorf("%s, want %s", ready, tc.ready)
			}
		})
	}
}
