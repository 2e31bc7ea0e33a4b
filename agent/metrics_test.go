// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/scrape"
)

func (o observation) Describe(descs chan<- *prometheus.Desc) { (&Collector{}).Describe(descs) }

func (o observation) Collect(metrics chan<- prometheus.Metric) {
	for m := range o.metrics() {
		metrics <- m
	}
}

// busy is a node on which everything is the case that can be.
func busy() observation {
	reading := func(id uint32, index int, counts map[traffic.Class]traffic.Counts) traffic.Reading {
		r := traffic.Reading{Map: traffic.MapID{Boot: "b", ID: id}, Index: index}
		for class, c := range counts {
			r.Totals[class] = c
		}
		return r
	}
	return observation{
		info:     v1alpha1.AgentInfo{Version: "1.2.3", KernelRelease: "6.18.0", ProgramTag: "ae4c2ac4ab6d1c9e", BootID: "b"},
		success:  true,
		duration: 1500 * time.Microsecond,
		resyncs:  2,
		interfaces: []plan.Interface{
			{Name: "lo", Index: 1},
			{Name: "eth0", Index: 2, Hook: plan.Hook{Program: 20, Mode: plan.Native}},
			{Name: "a\xff\"\\\nb", Index: 3, Hook: plan.Hook{Program: 30, Mode: plan.Generic}},
			{Name: "taken", Index: 4, Hook: plan.Hook{Program: 999, Mode: plan.Native}},
			{Name: "shared", Index: 5, Hook: plan.Hook{Program: 51, Mode: plan.Native}}, // by another dispatcher than a moment ago
		},
		programs: []plan.Program{
			{Map: 10, ID: 20, Tag: "ae4c2ac4ab6d1c9e", Runs: 1 << 53, RunTime: 90*time.Second + 7},
			{Map: 11, ID: 30}, // an update was killed
			{Map: 12, ID: 40, Tag: "ae4c2ac4ab6d1c9e"},
			{Map: 13},
			{Map: 15, ID: 50, ViaDispatcher: true, Tag: "3ddb4658cecffec8"},
		},
		readings: []traffic.Reading{
			reading(10, 2, map[traffic.Class]traffic.Counts{
				traffic.IP(traffic.IPv4, 6):   {Packets: 1 << 53, Bytes: 9007199254740991},
				traffic.IP(traffic.IPv6, 58):  {Packets: 3, Bytes: 258},
				traffic.IP(traffic.IPv4, 200): {Packets: 1, Bytes: 60},
				traffic.ClassARP:              {Packets: 2, Bytes: 84},
				traffic.ClassMalformed:        {Packets: 1}, // just being counted
			}),
			reading(11, 3, map[traffic.Class]traffic.Counts{traffic.ClassOther: {Packets: 5, Bytes: 300}}),
			reading(12, 4, map[traffic.Class]traffic.Counts{traffic.ClassOther: {Packets: 7, Bytes: 420}}), // the link was cut
			reading(13, 0, map[traffic.Class]traffic.Counts{traffic.ClassOther: {Packets: 8, Bytes: 480}}), // the interface is gone
			reading(14, 2, map[traffic.Class]traffic.Counts{traffic.ClassOther: {Packets: 9, Bytes: 540}}), // just being attached
			reading(15, 5, map[traffic.Class]traffic.Counts{traffic.ClassARP: {Packets: 6, Bytes: 252}}),
		},
		passResults: passResults{
			passed: true, lastPass: 12 * time.Millisecond,
			writes: map[string]uint64{"success": 41, "error": 1},
			interfaceMetrics: interfaceMetricsOf([]v1alpha1.NodeInterface{
				{State: v1alpha1.InterfaceDetaching, Map: 13},
				{Name: "eth0", State: v1alpha1.InterfaceAttached, RequestedMode: v1alpha1.AttachAuto, Mode: v1alpha1.AttachNative},
				{Name: "eth0", State: v1alpha1.InterfaceFailed, RequestedMode: v1alpha1.AttachGeneric, Reason: v1alpha1.ReasonModeConflict, Counters: uids([]string{"x"})},
				{Name: "eth0", State: v1alpha1.InterfaceFailed, RequestedMode: v1alpha1.AttachGeneric, Reason: v1alpha1.ReasonModeConflict, Counters: uids([]string{"y"})},
				{
					Name: "a\xff\"\\\nb", State: v1alpha1.InterfaceAttached, RequestedMode: v1alpha1.AttachAuto, Mode: v1alpha1.AttachGeneric,
					SwitchedOff: []v1alpha1.SwitchedOffFeatures{{Interface: "a", Features: []string{"rx-gro-hw", "rx-lro"}}, {Interface: "b", Features: []string{"rx-lro"}}},
				},
				{Name: "taken", State: v1alpha1.InterfaceFailed, RequestedMode: v1alpha1.AttachNative, Reason: v1alpha1.ReasonXDPHookInUse},
				{Name: "shared", State: v1alpha1.InterfaceAttached, RequestedMode: v1alpha1.AttachAuto, Mode: v1alpha1.AttachNative, Coexistence: v1alpha1.CoexistenceDispatcher},
				{Name: "bond0", State: v1alpha1.InterfaceSkipped, RequestedMode: v1alpha1.AttachAuto, Reason: v1alpha1.ReasonCountedElsewhere, Counters: uids([]string{"x"})},
			}),
		},
	}
}

func TestWhatIsServed(t *testing.T) {
	for file, o := range map[string]observation{
		"testdata/busy.metrics": busy(),
		// The counts cannot be read, and no pass was made.
		"testdata/broken.metrics": {info: v1alpha1.AgentInfo{Version: "1.2.3"}, duration: time.Second},
	} {
		scrape.Check(t, file, o)
	}
}

// TestTheNumberOfSeries holds the formula of docs/metrics.md against a node of which nothing is missing.
func TestTheNumberOfSeries(t *testing.T) {
	for _, interfaces := range []int{0, 1, 8} {
		for _, classes := range []int{0, 1, 12, traffic.NumClasses} {
			o := observation{success: true, passResults: passResults{passed: true}}
			for i := 1; i <= interfaces; i++ {
				name := string(rune('a' + i))
				o.interfaces = append(o.interfaces, plan.Interface{Name: name, Index: i, Hook: plan.Hook{Program: uint32(i)}})
				o.programs = append(o.programs, plan.Program{Map: uint32(i), ID: uint32(i), Tag: "t", Runs: 1})
				o.interfaceMetrics = append(o.interfaceMetrics, interfaceMetric{name: name, attached: true})
				r := traffic.Reading{Map: traffic.MapID{ID: uint32(i)}, Index: i}
				for class := range classes {
					r.Totals[class] = traffic.Counts{Packets: 1, Bytes: 60}
				}
				o.readings = append(o.readings, r)
			}
			if got, want := scrape.Series(t, o), MaxSeries(interfaces, interfaces*classes); got != want {
				t.Errorf("%d interfaces with %d classes each are %d series, want %d", interfaces, classes, got, want)
			}
		}
	}
}

func TestAScrapeTellsWhatTheKernelHasThen(t *testing.T) {
	n := newNode(t, counter("a"))
	c := &Collector{Agent: n.agent, Resyncs: func() uint64 { return 3 }, Programs: func() (list []plan.Program, err error) {
		for _, a := range n.attached {
			list = append(list, plan.Program{Map: a.Map, ID: a.Program, Tag: "t"})
		}
		return list, nil
	}}
	value := func(name string, labels ...string) float64 {
		t.Helper()
		for _, f := range scrape.Families(t, c) {
			for _, m := range f.GetMetric() {
				var got []string
				for _, l := range m.GetLabel() {
					got = append(got, l.GetValue())
				}
				if f.GetName() == name && slices.Equal(got, labels) {
					return m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
		return -1
	}
	expect := func(want float64, name string, labels ...string) {
		t.Helper()
		if got := value(name, labels...); got != want {
			t.Errorf("%s%q is %v, want %v", name, labels, got, want)
		}
	}
	expect(-1, "xdpcounter_pass_success")
	n.settle()
	n.receive("eth0", 5)
	expect(5, "xdpcounter_packets_total", "IPv4", "eth0", "TCP") // without a pass
	expect(500, "xdpcounter_bytes_total", "IPv4", "eth0", "TCP")
	expect(1, "xdpcounter_interface_attached", "eth0", "Native", "", "Auto")
	expect(1, "xdpcounter_pass_success")
	expect(1, "xdpcounter_snapshot_success")
	expect(3, "xdpcounter_netlink_resyncs_total")
	expect(2, "xdpcounter_report_writes_total", "success")

	n.saveError = errAPIDown
	n.clock.Step(time.Hour)
	if _, _, err := n.pass(); !errors.Is(err, errAPIDown) {
		t.Fatal(err)
	}
	expect(0, "xdpcounter_pass_success")
	expect(1, "xdpcounter_report_writes_total", "error")
	again := &Agent{Client: n.client, Node: "n1", Info: n.agent.Info, Datapath: n, Links: n, Clock: n.clock}
	n.agent, c.Agent = again, again
	n.receive("eth0", 2)
	expect(7, "xdpcounter_packets_total", "IPv4", "eth0", "TCP") // a restart of the agent resets nothing
	expect(0, "xdpcounter_report_writes_total", "success")

	c.Programs = func() ([]plan.Program, error) { return nil, errors.New("no") }
	expect(0, "xdpcounter_snapshot_success")
	expect(-1, "xdpcounter_packets_total", "IPv4", "eth0", "TCP")
}
