// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/cmd/internal/display"
)

var (
	tcp4 = traffic.IP(traffic.IPv4, 6)
	udp4 = traffic.IP(traffic.IPv4, 17)
	tcp6 = traffic.IP(traffic.IPv6, 6)

	noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
)

func id(n uint32) traffic.MapID { return traffic.MapID{ID: n} }

// totals returns totals with the given number of packets in each class, of 100 bytes each.
func totals(packets map[traffic.Class]uint64) (t traffic.Totals) {
	for c, n := range packets {
		t[c] = traffic.Counts{Packets: n, Bytes: 100 * n}
	}
	return t
}

func comparing() cmp.Option {
	return cmp.AllowUnexported(report{}, section{}, counted{}, class{}, sample{})
}

func TestMeasure(t *testing.T) {
	eth0 := counted{name: "eth0", mode: plan.Native, id: id(1)}
	at := func(d time.Duration, packets map[traffic.Class]uint64) sample {
		return sample{time: noon.Add(d), interfaces: []counted{eth0}, totals: map[traffic.MapID]traffic.Totals{id(1): totals(packets)}}
	}
	for name, test := range map[string]struct {
		from, to sample
		want     section
	}{
		"classes are sorted by packets": {
			at(0, map[traffic.Class]uint64{tcp4: 10, udp4: 100}),
			at(2*time.Second, map[traffic.Class]uint64{tcp4: 50, udp4: 100, tcp6: 60}),
			section{
				counted: eth0, all: traffic.Counts{Packets: 210, Bytes: 21000}, allRate: display.Rate{Packets: 50, Bits: 40000},
				classes: []class{
					{udp4, traffic.Counts{Packets: 100, Bytes: 10000}, display.Rate{}},
					{tcp6, traffic.Counts{Packets: 60, Bytes: 6000}, display.Rate{Packets: 30, Bits: 24000}},
					{tcp4, traffic.Counts{Packets: 50, Bytes: 5000}, display.Rate{Packets: 20, Bits: 16000}},
				},
			},
		},
		"a late sample": {
			at(0, nil), at(2500*time.Millisecond, map[traffic.Class]uint64{tcp4: 5}),
			section{
				counted: eth0, all: traffic.Counts{Packets: 5, Bytes: 500}, allRate: display.Rate{Packets: 2, Bits: 1600},
				classes: []class{{tcp4, traffic.Counts{Packets: 5, Bytes: 500}, display.Rate{Packets: 2, Bits: 1600}}},
			},
		},
		"no elapsed time": {
			at(0, nil), at(0, map[traffic.Class]uint64{tcp4: 5}),
			section{
				counted: eth0, all: traffic.Counts{Packets: 5, Bytes: 500},
				classes: []class{{class: tcp4, counts: traffic.Counts{Packets: 5, Bytes: 500}}},
			},
		},
		"no packets": {at(0, nil), at(time.Second, nil), section{counted: eth0}},
		"a new map": {
			sample{time: noon}, at(time.Second, map[traffic.Class]uint64{tcp4: 5}),
			section{
				counted: eth0, all: traffic.Counts{Packets: 5, Bytes: 500}, allRate: display.Rate{Packets: 5, Bits: 4000},
				classes: []class{{tcp4, traffic.Counts{Packets: 5, Bytes: 500}, display.Rate{Packets: 5, Bits: 4000}}},
			},
		},
	} {
		want := report{time: test.to.time, elapsed: test.to.time.Sub(test.from.time), sections: []section{test.want}}
		if diff := cmp.Diff(want, measure(test.from, test.to), comparing()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestNewSampleInterfaces(t *testing.T) {
	eth0 := plan.Interface{Name: "eth0", Index: 2, Hook: plan.Hook{Program: 20, Mode: plan.Native}}
	eth1 := plan.Interface{Name: "eth1", Index: 3, Hook: plan.Hook{Program: 30, Mode: plan.Generic}}
	attached := []plan.Attachment{{Index: 2, Program: 20, Map: 1}, {Index: 3, Program: 30, Map: 2}}
	readings := []traffic.Reading{{Map: id(1), Index: 2}, {Map: id(2), Index: 3}}
	shown0 := counted{name: "eth0", mode: plan.Native, id: id(1)}
	shown1 := counted{name: "eth1", mode: plan.Generic, id: id(2)}
	gone := func(c counted) counted { c.gone = true; return c }

	for name, test := range map[string]struct {
		selected   []string
		attached   []plan.Attachment
		readings   []traffic.Reading
		interfaces []plan.Interface
		before     []counted
		want       []counted
	}{
		"none selected shows all": {nil, attached, readings, []plan.Interface{eth0, eth1}, nil, []counted{shown0, shown1}},
		"one selected":            {[]string{"eth1"}, attached, readings, []plan.Interface{eth0, eth1}, nil, []counted{shown1}},
		"one selected by an alternative name": {
			[]string{"enp0s3"}, attached, readings, []plan.Interface{eth0, {Name: "eth1", AltNames: []string{"enp0s3"}, Index: 3, Hook: eth1.Hook}}, nil, []counted{shown1},
		},
		"a renamed interface stays":   {[]string{"old"}, attached, readings, []plan.Interface{eth0}, []counted{{name: "old", mode: plan.Native, id: id(1)}}, []counted{shown0}},
		"a deleted interface is gone": {nil, []plan.Attachment{{Map: 1}}, readings[:1], nil, []counted{shown0}, []counted{gone(shown0)}},
		"an interface with another program is gone": {
			nil, attached[:1], readings, []plan.Interface{{Name: "eth0", Index: 2, Hook: plan.Hook{Program: 99, Mode: plan.Native}}},
			[]counted{shown0}, []counted{gone(shown0)},
		},
		"gone before the first sample":                {nil, []plan.Attachment{{Map: 1}}, readings, nil, nil, nil},
		"the same index in another network namespace": {nil, attached, readings, []plan.Interface{{Name: "other", Index: 2}}, nil, nil},
		"no reading": {nil, attached, readings[1:], []plan.Interface{eth0, eth1}, nil, []counted{shown1}},
	} {
		got := newSample(noon, test.selected, test.attached, test.readings, test.interfaces, sample{interfaces: test.before})
		if diff := cmp.Diff(test.want, got.interfaces, comparing()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if len(got.totals) != len(test.readings) || !got.time.Equal(noon) {
			t.Errorf("%s: %d totals at %v", name, len(got.totals), got.time)
		}
		if allGone := got.allGone(); allGone != (len(test.want) == 0 || test.want[0].gone) {
			t.Errorf("%s: all gone is %v", name, allGone)
		}
	}
}
