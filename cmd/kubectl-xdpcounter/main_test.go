// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

var (
	tcp4 = traffic.IP(traffic.IPv4, 6)
	udp4 = traffic.IP(traffic.IPv4, 17)
	tcp6 = traffic.IP(traffic.IPv6, 6)

	noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
)

const interval = 10 * time.Second

// skewOfNodes is by how much the clocks of the nodes are wrong. No output depends on it.
const skewOfNodes = 2 * time.Hour

// some returns totals with the given number of packets in each class, of 100 bytes each.
func some(packets map[traffic.Class]uint64) (t traffic.Totals) {
	for c, n := range packets {
		t[c] = traffic.Counts{Packets: n, Bytes: 100 * n}
	}
	return t
}

// aCounter returns a counter that is Ready and has the totals.
func aCounter(name string, totals traffic.Totals) v1alpha1.XDPCounter {
	c := v1alpha1.XDPCounter{}
	c.Name, c.UID, c.Generation = name, types.UID("uid-"+name), 2
	sum := totals.Sum()
	c.Status = v1alpha1.XDPCounterStatus{
		ObservedGeneration: 2,
		Nodes:              &v1alpha1.NodeNumbers{Selected: 2, Ready: 2},
		Total:              &v1alpha1.Total{Packets: v1alpha1.Int64(sum.Packets), Bytes: v1alpha1.Int64(sum.Bytes)},
		Protocols:          v1alpha1.ProtocolsOf(totals, traffic.Rates{}),
		Summary:            &v1alpha1.Summary{Nodes: "2/2", Interfaces: "4/4"},
		LastReportTime:     &metav1.Time{Time: noon.Add(-3 * time.Second)},
	}
	withReady(&c, metav1.ConditionTrue, v1alpha1.ReasonAllInterfacesAttached, "4 interfaces are being counted on 2 nodes")
	return c
}

func withReady(c *v1alpha1.XDPCounter, status metav1.ConditionStatus, reason, message string) {
	c.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: message, ObservedGeneration: c.Generation,
	}}
}

// withRates sets the rates of the protocols in the status to a tenth of the totals.
func withRates(c *v1alpha1.XDPCounter) {
	for i := range c.Status.Protocols {
		p := &c.Status.Protocols[i]
		packets, bits := p.Packets/10, p.Bytes*8/10
		p.PacketsPerSecond, p.BitsPerSecond = packets, bits
		c.Status.Total.PacketsPerSecond += packets
		c.Status.Total.BitsPerSecond += bits
	}
}

// aNode returns the state of a node with two interfaces that count for the counters. Its report time is relative to noon.
func aNode(name string, at time.Duration, totals traffic.Totals, counters ...v1alpha1.XDPCounter) v1alpha1.XDPNodeState {
	s := v1alpha1.XDPNodeState{}
	s.Name, s.UID, s.Generation = name, types.UID("state-"+name), 1
	s.CreationTimestamp.Time = noon.Add(-time.Hour)
	s.Spec.ReportInterval.Duration = interval
	reported := metav1.NewMicroTime(noon.Add(at + skewOfNodes))
	s.ManagedFields = []metav1.ManagedFieldsEntry{{Subresource: "status", Time: &metav1.Time{Time: noon.Add(at)}}}
	s.Status = v1alpha1.XDPNodeStateStatus{
		ObservedGeneration: 1, ReportTime: &reported, Agent: &v1alpha1.AgentInfo{BootID: "boot"},
		Interfaces: []v1alpha1.NodeInterface{
			{Name: "eth0", Index: 2, Mode: v1alpha1.AttachNative, State: v1alpha1.InterfaceAttached, Map: 7, Counts: v1alpha1.CountsOf(totals)},
			{Name: "eth1.100é-abcde", Index: 3, Mode: v1alpha1.AttachGeneric, State: v1alpha1.InterfaceAttached, Map: 8},
		},
	}
	rates := traffic.Rates{traffic.ClassARP: {PacketsPerSecond: 12, BitsPerSecond: 9600}}
	for _, c := range counters {
		s.Spec.Counters = append(s.Spec.Counters, v1alpha1.NodeCounter{Name: c.Name, UID: c.UID, Generation: c.Generation})
		s.Status.Accounts = append(s.Status.Accounts, v1alpha1.CounterAccount{
			UID: c.UID, Generation: c.Generation, Counts: v1alpha1.CountsAndRatesOf(totals, rates),
		})
		for i := range s.Status.Interfaces {
			s.Status.Interfaces[i].Counters = append(s.Status.Interfaces[i].Counters, c.UID)
		}
	}
	return s
}

// cacheOf knows the counters, and the nodes by as many reports as it is given.
func cacheOf(counters []v1alpha1.XDPCounter, reports ...v1alpha1.XDPNodeState) *objectCache {
	w := &objectCache{}
	w.setCounters(counters)
	w.setNodes(nil, noon)
	for _, state := range reports {
		w.nodes[state.Name] = w.nodes[state.Name].next(&state, state.LastReported())
	}
	return w
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
