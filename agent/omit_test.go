// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// vlans returns eth0 with that many VLANs, which belong to a counter of all interfaces.
func vlans(n int) []plan.Interface {
	list := []plan.Interface{{Name: "eth0", Index: 2, Primary: true}}
	for i := range n {
		list = append(list, plan.Interface{Name: fmt.Sprintf("eth0.%d", i+1), Index: 3 + i, Kind: "vlan", Driver: "802.1Q VLAN Support", MTU: 1500, Parent: 2})
	}
	return list
}

func named(uid string, patterns ...string) v1alpha1.NodeCounter {
	return v1alpha1.NodeCounter{Name: uid, UID: types.UID(uid), Generation: 1, Names: patterns}
}

func size(t *testing.T, n *node) int {
	t.Helper()
	text, err := json.Marshal(n.state().Status)
	if err != nil {
		t.Fatal(err)
	}
	return len(text)
}

func TestThousandsOfVLANsAreASmallReport(t *testing.T) {
	for name, test := range map[string]struct {
		counter v1alpha1.NodeCounter
		omitted v1alpha1.OmittedInterfaces
	}{
		"that are skipped": {named("a", "*"), v1alpha1.OmittedInterfaces{UID: "a", Skipped: 3900}},
		"that fail":        {named("a", "eth0.*"), v1alpha1.OmittedInterfaces{UID: "a", Failed: 3900}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, test.counter)
			n.interfaces = vlans(4000)
			for _, i := range n.interfaces[1:] {
				n.refuse[i.Name] = fmt.Errorf("attach %s: %w: device or resource busy", i.Name, plan.ErrHookInUse)
			}
			for range 3 {
				if _, _, err := n.pass(); err != nil {
					t.Fatal(err)
				}
				n.clock.Step(time.Second)
			}
			if diff := cmp.Diff([]v1alpha1.OmittedInterfaces{test.omitted}, n.state().Status.OmittedInterfaces); diff != "" {
				t.Errorf("omitted (-want +got):\n%s", diff)
			}
			if got := size(t, n); got > 100_000 {
				t.Errorf("the status has %d bytes", got)
			}
		})
	}
}

// All VLANs are attached after the first report. Until then they are pending.
func TestInterfacesThatAreCountedAreNotOmitted(t *testing.T) {
	n := newNode(t, named("a", "eth0.*"))
	n.interfaces = vlans(300)
	n.expectSteps("read", "save")
	if diff := cmp.Diff([]v1alpha1.OmittedInterfaces{{UID: "a", Pending: 200}}, n.state().Status.OmittedInterfaces); diff != "" {
		t.Errorf("omitted before (-want +got):\n%s", diff)
	}
	n.settle()
	if s := n.state().Status; len(s.Interfaces) != 300 || s.OmittedInterfaces != nil {
		t.Errorf("%d interfaces are listed, omitted are %v", len(s.Interfaces), s.OmittedInterfaces)
	}
	n.edit(func(s *v1alpha1.XDPNodeState) { s.Spec.Counters[0].Inactive = true })
	if _, _, err := n.pass(); err != nil {
		t.Fatal(err)
	}
	if s := n.state().Status; len(s.Interfaces) != 300 || s.Interfaces[299].State != v1alpha1.InterfaceDetaching {
		t.Errorf("%d interfaces are listed, the last as %+v", len(s.Interfaces), s.Interfaces[len(s.Interfaces)-1])
	}
}

func TestOmit(t *testing.T) {
	entries := func(n, from int, state v1alpha1.InterfaceState, reason string, uids ...types.UID) (list []v1alpha1.NodeInterface) {
		for i := range n {
			list = append(list, v1alpha1.NodeInterface{Index: int32(from + i), State: state, Reason: reason, Counters: uids})
		}
		return list
	}
	failed := func(n, from int, uids ...types.UID) []v1alpha1.NodeInterface {
		return entries(n, from, v1alpha1.InterfaceFailed, v1alpha1.ReasonXDPHookInUse, uids...)
	}
	waiting := func(n, from int, uids ...types.UID) []v1alpha1.NodeInterface {
		return entries(n, from, v1alpha1.InterfaceFailed, v1alpha1.ReasonPending, uids...)
	}
	skipped := func(n, from int, uids ...types.UID) []v1alpha1.NodeInterface {
		return entries(n, from, v1alpha1.InterfaceSkipped, v1alpha1.ReasonCountedElsewhere, uids...)
	}
	attached := func(n, from int, uids ...types.UID) []v1alpha1.NodeInterface {
		return entries(n, from, v1alpha1.InterfaceAttached, "", uids...)
	}
	indexes := func(ranges ...int) (list []int32) { // of pairs: first and number
		for i := 0; i < len(ranges); i += 2 {
			for j := range ranges[i+1] {
				list = append(list, int32(ranges[i]+j))
			}
		}
		return list
	}
	for name, test := range map[string]struct {
		interfaces []v1alpha1.NodeInterface
		listed     []int32 // indexes
		omitted    []v1alpha1.OmittedInterfaces
	}{
		"none":                  {},
		"as many as are listed": {slices.Concat(failed(50, 1, "a"), skipped(50, 51, "a")), indexes(1, 100), nil},
		"one more":              {failed(101, 1, "a"), indexes(1, 100), []v1alpha1.OmittedInterfaces{{UID: "a", Failed: 1}}},
		"failed before skipped": {
			slices.Concat(skipped(100, 1, "a"), failed(60, 101, "a")), indexes(1, 40, 101, 60), []v1alpha1.OmittedInterfaces{{UID: "a", Skipped: 60}},
		},
		"pending is neither": {
			slices.Concat(waiting(100, 1, "a"), failed(100, 101, "a"), skipped(10, 201, "a")), indexes(1, 1, 101, 100, 201, 1),
			[]v1alpha1.OmittedInterfaces{{UID: "a", Pending: 99, Skipped: 9}},
		},
		"those that are counted take no place": {
			slices.Concat(attached(500, 1, "a"), skipped(101, 501, "a")), indexes(1, 600), []v1alpha1.OmittedInterfaces{{UID: "a", Skipped: 1}},
		},
		"each counter has an example of each kind": {
			slices.Concat(failed(100, 1, "a"), failed(5, 101, "b"), skipped(5, 106, "b", "a"), skipped(5, 111, "c")), indexes(1, 101, 106, 1, 111, 1),
			[]v1alpha1.OmittedInterfaces{{UID: "a", Skipped: 4}, {UID: "b", Failed: 4, Skipped: 4}, {UID: "c", Skipped: 4}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			list, omitted := omit(test.interfaces)
			var listed []int32
			for _, i := range list {
				listed = append(listed, i.Index)
			}
			if diff := cmp.Diff(test.listed, listed); diff != "" {
				t.Errorf("listed (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.omitted, omitted); diff != "" {
				t.Errorf("omitted (-want +got):\n%s", diff)
			}
		})
	}
}

// BenchmarkPass is a pass over an interface with 4,000 VLANs. Twice the VLANs must not take four times as long.
func BenchmarkPass(b *testing.B) {
	for _, vlan := range []int{2000, 4000} {
		for name, pattern := range map[string]string{"skipped": "*", "attached": "eth0.*"} {
			b.Run(fmt.Sprintf("%d_%s", vlan, name), func(b *testing.B) {
				list := vlans(vlan)
				state := &v1alpha1.XDPNodeState{}
				state.Spec.Counters = []v1alpha1.NodeCounter{named("a", pattern)}
				s := nodeSnapshot{interfaces: list}
				for i := range list[1:] {
					if name == "attached" {
						list[i+1].Hook = plan.Hook{Program: uint32(i + 1), Mode: plan.Native}
						s.attached = append(s.attached, plan.Attachment{Index: list[i+1].Index, Program: uint32(i + 1), Map: uint32(i + 1)})
					}
				}
				a := &Agent{}
				for b.Loop() {
					var o outcome
					o.want, o.selected, o.rejected = plan.Desired(selections(state.Spec), s.interfaces, s.attached)
					_, o.detach = plan.Diff(s.attached, o.want, s.interfaces)
					interfaces := a.interfaces(v1alpha1.XDPNodeStateStatus{}, s, o, traffic.Ledger{})
					a.passMetrics.interfaces(interfaces)
					omit(interfaces)
				}
			})
		}
	}
}
