// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

func TestSummarizeReadyCondition(t *testing.T) {
	edge := []corev1.Node{node("n1", "edge"), node("n2", "edge"), node("n3", "core"), windows("w2", "mixed"), windows("w1", "mixed"), node("n4", "mixed"), windows("w3", "windows")}
	good := func(name string) stateBuilder {
		return state(name).For("a", 5).Attached("eth0", v1alpha1.AttachNative, "a")
	}
	objs := func(bs ...stateBuilder) (list []v1alpha1.XDPNodeState) {
		for _, b := range bs {
			list = append(list, b.Obj())
		}
		return list
	}
	for name, tc := range map[string]struct {
		counter  counterBuilder
		states   []v1alpha1.XDPNodeState
		want     string
		numbers  string // ready/selected failed; attached native generic failed
		failures []string
	}{
		"all interfaces are counted": {
			counter("a").Pool("edge"), objs(good("n1"), good("n2").Attached("eth1", v1alpha1.AttachGeneric, "a")),
			"True AllInterfacesAttached: 3 interfaces are being counted on 2 nodes", "2/2 0; 3 2 1 0", nil,
		},
		"an interface whose frames are counted on another interface is no failure": {
			counter("a").Pool("core"), objs(good("n3").Skipped("bond0", "a").Skipped("br0", "b")),
			"True AllInterfacesAttached: 1 interface is being counted on 1 node; the frames of 1 more interface are already counted there: n3/bond0", "1/1 0; 1 1 0 0", nil,
		},
		"a bond without members is no failure, and nothing is missed": {
			counter("a").Pool("core"), objs(good("n3").Empty("bond0", "a")),
			"True AllInterfacesAttached: 1 interface is being counted on 1 node", "1/1 0; 1 1 0 0", nil,
		},
		"only a bond without members is selected": {
			counter("a").Pool("core"), objs(state("n3").For("a", 5).Empty("bond0", "a")),
			"False NoInterfacesMatched: spec.interfaces selects no interface on 1 node: n3", "0/1 1; 0 0 0 0",
			[]string{"n3  NoInterfacesMatched"},
		},
		"an interface in generic mode because native mode was refused is counted and mentioned": {
			counter("a").Pool("edge"), objs(good("n1"), good("n2").FellBack("eth1", v1alpha1.ReasonMTUTooLarge, "a")),
			"True AllInterfacesAttached: 3 interfaces are being counted on 2 nodes; 1 in generic mode because native mode was refused: n2/eth1 (MTUTooLarge)",
			"2/2 0; 3 2 1 0", nil,
		},
		"interfaces in generic mode that count packets of IPsec tunnels twice are counted and mentioned": {
			counter("a").Pool("edge"), objs(good("n1").FellBack("br0", v1alpha1.ReasonDecryptedPacketsCounted, "a"),
				good("n2").FellBack("eth1", v1alpha1.ReasonMTUTooLarge, "a").FellBack("br0", v1alpha1.ReasonDecryptedPacketsCounted, "a")),
			"True AllInterfacesAttached: 5 interfaces are being counted on 2 nodes; 1 in generic mode because native mode was refused: n2/eth1 (MTUTooLarge); " +
				"packets of IPsec tunnels count twice on 2 interfaces in generic mode: n1/br0, n2/br0",
			"2/2 0; 5 2 3 0", nil,
		},
		"interfaces in generic mode that count aggregates as one packet are counted and mentioned": {
			counter("a").Pool("edge"), objs(good("n1").FellBack("br0", v1alpha1.ReasonAggregatedFrames, "a"), good("n2")),
			"True AllInterfacesAttached: 3 interfaces are being counted on 2 nodes; several frames can count as one packet on 1 interface: n1/br0",
			"2/2 0; 3 2 1 0", nil,
		},
		"interfaces on which generic mode costs less are not mentioned": {
			counter("a").Pool("edge"), objs(good("n1").FellBack("veth0", v1alpha1.ReasonGenericIsCheaper, "a"), good("n2")),
			"True AllInterfacesAttached: 3 interfaces are being counted on 2 nodes", "2/2 0; 3 2 1 0", nil,
		},
		"no node is selected": {
			counter("a").Pool("none"), objs(state("n1").For("a", 5)),
			"False NoNodesSelected: spec.nodeSelector selects no node", "0/0 0; 0 0 0 0", nil,
		},
		"only nodes on which no agent can run are selected": {
			counter("a").Pool("windows"), nil,
			"False NoNodesSelected: spec.nodeSelector selects only nodes on which no agent can run (not Linux, AWS Fargate or Virtual Kubelet): w3", "0/0 0; 0 0 0 0", nil,
		},
		"nodes on which no agent can run are left out": {
			counter("a").Pool("mixed"), objs(good("n4")),
			"True AllInterfacesAttached: 1 interface is being counted on 1 node; 2 nodes are left out, because no agent can run there (not Linux, AWS Fargate or Virtual Kubelet): w1, w2",
			"1/1 0; 1 1 0 0", nil,
		},
		"a node that is labelled so that no agent can run there, and still counts": {
			counter("a").Pool("mixed"), objs(good("n4"), good("w1")),
			"Unknown Pending: waiting for 1 node to stop counting: w1", "1/1 0; 1 1 0 0", nil,
		},
		"the selector has an invalid label key": {
			counter("a").Selector("a b", metav1.LabelSelectorOpExists), objs(good("n1")),
			`False InvalidNodeSelector: spec.nodeSelector: key: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
			"0/0 0; 0 0 0 0", nil,
		},
		"suspended": {
			counter("a").Suspended(), objs(state("n1").For("a", 5), good("n2").SilentSince(born)),
			"True Suspended: counting is suspended; the totals are kept", "0/0 0; 0 0 0 0", nil,
		},
		"suspended while some nodes still count": {
			counter("a").Suspended(), objs(good("n2"), good("n1")),
			"Unknown Pending: waiting for 2 nodes to stop counting: n1, n2", "0/0 0; 0 0 0 0", nil,
		},
		"a node that is no longer selected still counts": {
			counter("a").Pool("core"), objs(good("n1"), good("n3")),
			"Unknown Pending: waiting for 1 node to stop counting: n1", "1/1 0; 1 1 0 0", nil,
		},
		"a node without a node state is pending": {
			counter("a").Pool("edge"), objs(good("n1")),
			"Unknown Pending: 1 of 2 nodes have not applied the spec yet: n2", "1/2 0; 1 1 0 0", nil,
		},
		"a node whose agent has not seen the spec is pending": {
			counter("a").Pool("core"), objs(state("n3").Listing("a").Behind()),
			"Unknown Pending: 1 of 1 node has not applied the spec yet: n3", "0/1 0; 0 0 0 0", nil,
		},
		"a node whose agent has not seen a change for another counter is ready": {
			counter("a").Pool("core"), objs(good("n3").Behind()),
			"True AllInterfacesAttached: 1 interface is being counted on 1 node", "1/1 0; 1 1 0 0", nil,
		},
		"a node with an interface that is about to be attached is pending": {
			counter("a").Pool("core"), objs(state("n3").Listing("a").Failed("eth0", v1alpha1.ReasonPending, "a")),
			"Unknown Pending: 1 of 1 node has not applied the spec yet: n3", "0/1 0; 0 0 0 0", nil,
		},
		"no interface matches on any node": {
			counter("a").Pool("edge"), objs(state("n1").Listing("a"), state("n2").Listing("a").Attached("eth9", v1alpha1.AttachNative, "b")),
			"False NoInterfacesMatched: spec.interfaces selects no interface on 2 nodes: n1, n2", "0/2 2; 0 0 0 0",
			[]string{"n1  NoInterfacesMatched", "n2  NoInterfacesMatched"},
		},
		"one interface fails": {
			counter("a").Pool("edge"), objs(good("n1"), good("n2").Failed("eth1", v1alpha1.ReasonXDPHookInUse, "a")),
			"False PartiallyAttached: 1 of 2 nodes have failures: n2/eth1 (XDPHookInUse)", "1/2 1; 2 2 0 1",
			[]string{"n2 eth1 XDPHookInUse"},
		},
		"all interfaces fail": {
			counter("a").Pool("core"), objs(state("n3").Listing("a").Failed("eth0", v1alpha1.ReasonXDPHookInUse, "a")),
			"False NothingAttached: 1 of 1 node has failures: n3/eth0 (XDPHookInUse)", "0/1 1; 0 0 0 1",
			[]string{"n3 eth0 XDPHookInUse"},
		},
		"failures that the node states do not list are counted": {
			counter("a").Pool("edge"), objs(good("n1"), good("n2").Failed("eth1", v1alpha1.ReasonXDPHookInUse, "a").Omitted(
				v1alpha1.OmittedInterfaces{UID: "b", Failed: 9}, v1alpha1.OmittedInterfaces{UID: "a", Failed: 3900},
			)),
			"False PartiallyAttached: 1 of 2 nodes have failures: n2/eth1 (XDPHookInUse) and 3900 more", "1/2 1; 2 2 0 3901",
			[]string{"n2 eth1 XDPHookInUse"},
		},
		"skipped interfaces that the node states do not list are counted": {
			counter("a").Pool("core"), objs(good("n3").Skipped("eth0.1", "a").Omitted(v1alpha1.OmittedInterfaces{UID: "a", Skipped: 3999})),
			"True AllInterfacesAttached: 1 interface is being counted on 1 node; the frames of 4000 more interfaces are already counted there: n3/eth0.1 and 3999 more",
			"1/1 0; 1 1 0 0", nil,
		},
		"a node with more interfaces to attach than it lists is pending": {
			counter("a").Pool("core"), objs(good("n3").Omitted(v1alpha1.OmittedInterfaces{UID: "a", Pending: 200})),
			"Unknown Pending: 1 of 1 node has not applied the spec yet: n3", "0/1 0; 1 1 0 0", nil,
		},
		"control characters in a name are escaped": {
			counter("a").Pool("core"), objs(good("n3").Failed("a\x1b[31m", v1alpha1.ReasonXDPHookInUse, "a")),
			`False PartiallyAttached: 1 of 1 node has failures: n3/a\x1b[31m (XDPHookInUse)`, "0/1 1; 1 1 0 1",
			[]string{"n3 a\x1b[31m XDPHookInUse"},
		},
		"the failure of another counter is ignored": {
			counter("a").Pool("core"), objs(good("n3").Failed("eth1", v1alpha1.ReasonXDPHookInUse, "b")),
			"True AllInterfacesAttached: 1 interface is being counted on 1 node", "1/1 0; 1 1 0 0", nil,
		},
		"a node has not reported in time": {
			counter("a").Pool("edge"), objs(good("n1"), good("n2").SilentSince(now.Add(-201*time.Second))),
			"False AgentNotReporting: 1 of 2 nodes have not reported in time: n2", "1/2 1; 1 1 0 0",
			[]string{"n2  AgentNotReporting"},
		},
		"a heartbeat that is not overdue yet": {
			counter("a").Pool("core"), objs(good("n3").SilentSince(now.Add(-199 * time.Second))),
			"True AllInterfacesAttached: 1 interface is being counted on 1 node", "1/1 0; 1 1 0 0", nil,
		},
		"a node that has never reported": {
			counter("a").Pool("core"), objs(state("n3").Listing("a").NeverReported()),
			"False AgentNotReporting: 1 of 1 node has not reported in time: n3", "0/1 1; 0 0 0 0",
			[]string{"n3  AgentNotReporting"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := tc.counter.Obj()
			s := statusInTime(&c, edge, tc.states, now)
			ready := s.Conditions[0]
			if got := fmt.Sprintf("%s %s: %s", ready.Status, ready.Reason, v1alpha1.CauseOf(ready.Message)); got != tc.want {
				t.Errorf("Ready is %s\nwant     %s", got, tc.want)
			}
			remedy := "; remedy: " + v1alpha1.LookupReason(ready.Reason).Remedy
			if strings.HasSuffix(ready.Message, remedy) != (ready.Status != metav1.ConditionTrue) {
				t.Errorf("message %q of status %s, remedy %q", ready.Message, ready.Status, remedy)
			}
			if s.ObservedGeneration != 2 || ready.ObservedGeneration != 2 {
				t.Errorf("observed generations %d and %d, want 2", s.ObservedGeneration, ready.ObservedGeneration)
			}
			numbers := fmt.Sprintf("%d/%d %d; %d %d %d %d", s.Nodes.Ready, s.Nodes.Selected, s.Nodes.Failed,
				s.Interfaces.Attached, s.Interfaces.Native, s.Interfaces.Generic, s.Interfaces.Failed)
			if numbers != tc.numbers {
				t.Errorf("numbers %s, want %s", numbers, tc.numbers)
			}
			var failures []string
			for _, f := range s.Failures {
				failures = append(failures, strings.Join([]string{f.Node, f.Interface, f.Reason}, " "))
			}
			if diff := cmp.Diff(tc.failures, failures); diff != "" {
				t.Errorf("failures (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSummarizeTotals(t *testing.T) {
	nodes := []corev1.Node{node("n1", "edge")}
	five, seven := state("n1").For("a", 5).Obj(), state("n2").For("a", 7).For("b", 1000).Obj()
	arp := v1alpha1.ProtocolCounts{Family: "ARP", Protocol: "ARP", Packets: 2, Bytes: 84}
	for name, tc := range map[string]struct {
		counter counterBuilder
		want    int64
	}{
		"nodes that are no longer selected are included": {counter("a").Pool("edge"), 12},
		"departed nodes are included":                    {counter("a").Retired(v1alpha1.Retired{Counts: tcp(100)}), 112},
		"the state of a departing node is not added twice": {
			counter("a").Retired(v1alpha1.Retired{Counts: tcp(100), Departing: []v1alpha1.DepartingNode{{Name: "n2", UID: "uid-n2", Counts: tcp(7)}}}), 112,
		},
		"a new node state with the name of a departed node is added": {
			counter("a").Retired(v1alpha1.Retired{Departing: []v1alpha1.DepartingNode{{Name: "n2", UID: "older", Counts: tcp(7)}}}), 19,
		},
		"a total does not decrease when the cache is out of date": {counter("a").Reported(arp), 14},
		"a suspended counter keeps its totals":                    {counter("a").Suspended(), 12},
	} {
		t.Run(name, func(t *testing.T) {
			c := tc.counter.Obj()
			s := statusInTime(&c, nodes, []v1alpha1.XDPNodeState{five, seven}, now)
			if s.Total.Packets != tc.want {
				t.Errorf("total %d packets, want %d", s.Total.Packets, tc.want)
			}
			expectSumsAgree(t, s)
		})
	}
}

func TestSummarizeStatus(t *testing.T) {
	n1 := state("n1").Listing("a").Attached("eth0", v1alpha1.AttachNative, "a").Obj()
	n1.Status.Accounts = []v1alpha1.CounterAccount{{UID: "a", Generation: 2, Counts: v1alpha1.Counts{
		{Class: "IPv4/TCP", Packets: 100_000, Bytes: 90_000_000, PPS: 1500, BPS: 11_991_936},
		{Class: "IPv4/ICMP", Packets: 2_000, Bytes: 196_000},
		{Class: "IPv6/TCP", Packets: 900, Bytes: 66_600},
		{Class: "ARP", Packets: 20_598, Bytes: 865_116, PPS: 20, BPS: 8064},
		{Class: "IPv9/NEW", Packets: 2, Bytes: 120},
	}}}
	c := counter("a").Obj()
	s := statusInTime(&c, []corev1.Node{node("n1", "")}, []v1alpha1.XDPNodeState{n1}, now)

	number := func(n int32) *int32 { return &n }
	if diff := cmp.Diff([]v1alpha1.ProtocolCounts{
		{Family: "IPv4", Protocol: "TCP", Number: number(6), Packets: 100_000, Bytes: 90_000_000, PacketsPerSecond: 1500, BitsPerSecond: 11_991_936},
		{Family: "ARP", Protocol: "ARP", Packets: 20_598, Bytes: 865_116, PacketsPerSecond: 20, BitsPerSecond: 8064},
		{Family: "IPv4", Protocol: "ICMP", Number: number(1), Packets: 2_000, Bytes: 196_000},
		{Family: "IPv6", Protocol: "TCP", Number: number(6), Packets: 900, Bytes: 66_600},
		{Family: "Other", Protocol: "Other", Packets: 2, Bytes: 120},
	}, s.Protocols); diff != "" {
		t.Errorf("protocols (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]v1alpha1.FamilyCounts{
		{Family: "IPv4", Packets: 102_000, Bytes: 90_196_000},
		{Family: "IPv6", Packets: 900, Bytes: 66_600},
		{Family: "ARP", Packets: 20_598, Bytes: 865_116},
		{Family: "Other", Packets: 2, Bytes: 120},
	}, s.Families); diff != "" {
		t.Errorf("families (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&v1alpha1.Total{Packets: 123_500, Bytes: 91_127_836, PacketsPerSecond: 1520, BitsPerSecond: 12_000_000}, s.Total); diff != "" {
		t.Errorf("total (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&v1alpha1.Summary{
		Nodes: "1/1", Interfaces: "1/1", Packets: "123.5k", Bytes: "86.9MiB", Rate: "1.5k pps", Mode: "Native", Top: "TCP 82% ARP 17% ICMP 2%",
	}, s.Summary); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	if s.LastReportTime == nil || !s.LastReportTime.Time.Equal(now.Add(-time.Second)) {
		t.Errorf("last report at %v", s.LastReportTime)
	}
	expectSumsAgree(t, s)
}

func TestSummarizeRates(t *testing.T) {
	busy := state("n2").For("a", 7).Moving().Obj()
	for name, tc := range map[string]struct {
		other stateBuilder
		node  corev1.Node
		want  int64 // packets per second
	}{
		"another node with traffic":                                      {state("n1").For("a", 5).Moving(), node("n1", ""), 10},
		"another node without traffic":                                   {state("n1").For("a", 5), node("n1", ""), 5},
		"another node that is late":                                      {state("n1").For("a", 5).Moving().SilentSince(now.Add(-81 * time.Second)), node("n1", ""), 5},
		"another node that is not late yet":                              {state("n1").For("a", 5).Moving().SilentSince(now.Add(-79 * time.Second)), node("n1", ""), 10},
		"another node that is unreachable":                               {state("n1").For("a", 5).Moving().SilentSince(now.Add(-62 * time.Second)), unreachable(node("n1", ""), now.Add(-61*time.Second)), 5},
		"another node whose kubelet has stopped and whose agent reports": {state("n1").For("a", 5).Moving(), unreachable(node("n1", ""), born), 10},
	} {
		c := counter("a").Obj()
		s := statusInTime(&c, []corev1.Node{tc.node}, []v1alpha1.XDPNodeState{tc.other.Obj(), busy}, now)
		if s.Total.PacketsPerSecond != tc.want || s.Total.BitsPerSecond != 800*tc.want || s.Total.Packets != 12 {
			t.Errorf("with %s: %d packets/s, %d bits/s and %d packets; want %d packets/s of 100 bytes, and 12", name,
				s.Total.PacketsPerSecond, s.Total.BitsPerSecond, s.Total.Packets, tc.want)
		}
		if len(s.Protocols) != 1 || s.Protocols[0].PacketsPerSecond != tc.want || s.Protocols[0].BitsPerSecond != 800*tc.want {
			t.Errorf("with %s: the protocols are %v, want one with the rates of the total", name, s.Protocols)
		}
	}
}

func TestSummarizeListsTheFirstFailures(t *testing.T) {
	c := counter("a").Obj()
	var nodes []corev1.Node
	var states []v1alpha1.XDPNodeState
	for i := range 12 {
		name := fmt.Sprintf("n%02d", 11-i)
		nodes = append(nodes, node(name, ""))
		states = append(states, state(name).For("a", 1).Failed("eth0", v1alpha1.ReasonXDPHookInUse, "a").Obj())
	}
	s := statusInTime(&c, nodes, states, now)
	if len(s.Failures) != 10 || s.Failures[0].Node != "n00" || s.Nodes.Failed != 12 {
		t.Errorf("%d failures listed from %s on, %d nodes failed; want 10 from n00 on, and 12", len(s.Failures), s.Failures[0].Node, s.Nodes.Failed)
	}
	const want = "12 of 12 nodes have failures: n00/eth0 (XDPHookInUse), n01/eth0 (XDPHookInUse), n02/eth0 (XDPHookInUse) and 9 more"
	if got := v1alpha1.CauseOf(s.Conditions[0].Message); got != want {
		t.Errorf("message %q, want %q", got, want)
	}
}

func expectSumsAgree(t *testing.T, s v1alpha1.XDPCounterStatus) {
	t.Helper()
	var byProtocol, byFamily v1alpha1.Total
	for _, p := range s.Protocols {
		byProtocol.Packets += p.Packets
		byProtocol.Bytes += p.Bytes
	}
	for _, f := range s.Families {
		byFamily.Packets += f.Packets
		byFamily.Bytes += f.Bytes
	}
	want := v1alpha1.Total{Packets: s.Total.Packets, Bytes: s.Total.Bytes}
	if byProtocol != want || byFamily != want {
		t.Errorf("the protocols sum up to %v, the families to %v, the total is %v", byProtocol, byFamily, want)
	}
}

func TestDepartAndMergeDeparted(t *testing.T) {
	// total is what the status would have: the retired share and the states that it does not contain.
	total := func(r *v1alpha1.Retired, states ...v1alpha1.XDPNodeState) int64 {
		c := counter("a").Obj()
		c.Status.Retired = r
		return statusInTime(&c, nil, states, now).Total.Packets
	}
	leaving := state("n1").For("a", 7).Obj()
	gone := func(uids ...types.UID) func(v1alpha1.DepartingNode) bool {
		return func(d v1alpha1.DepartingNode) bool {
			return slices.Contains(uids, d.UID)
		}
	}
	expect := func(step string, got, want int64) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d packets, want %d", step, got, want)
		}
	}
	before := &v1alpha1.Retired{Counts: tcp(100)}
	expect("before the departure", total(before, leaving), 107)

	copied, changed := depart(before, &leaving, leaving.Status.Accounts[0])
	if !changed {
		t.Fatal("the first copy is not reported as a change")
	}
	expect("copied, the node state still exists", total(copied, leaving), 107)
	if _, changed := depart(copied, &leaving, leaving.Status.Accounts[0]); changed {
		t.Error("the same copy is reported as a change")
	}
	if same, changed := mergeDeparted(copied, gone()); changed || total(same, leaving) != 107 {
		t.Error("the copy of an existing node state is merged")
	}

	later := state("n1").For("a", 9).Obj() // the agent reported once more, so the delete was refused
	copied, changed = depart(copied, &later, later.Status.Accounts[0])
	if !changed || len(copied.Departing) != 1 {
		t.Errorf("a later copy does not replace the earlier one: %v", copied)
	}
	expect("copied again", total(copied, later), 109)
	expect("deleted", total(copied), 109)

	merged, changed := mergeDeparted(copied, gone("uid-n1"))
	if !changed || len(merged.Departing) != 0 {
		t.Errorf("the copy of a deleted node state is not merged: %v", merged)
	}
	expect("merged", total(merged), 109)
	if twice, changed := mergeDeparted(merged, gone("uid-n1")); changed || total(twice) != 109 {
		t.Error("a copy is merged twice")
	}
	if none, changed := mergeDeparted(nil, gone("x")); none != nil || changed {
		t.Error("merging without a retired share changes something")
	}
	expect("a new node with the same name", total(merged, state("n1").For("a", 1).Obj()), 110)
}
