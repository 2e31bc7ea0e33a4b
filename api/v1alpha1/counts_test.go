// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

func TestTotalsRoundTrip(t *testing.T) {
	var every traffic.Totals
	for c := range every {
		every[c] = traffic.Counts{Packets: uint64(c) + 1, Bytes: 60 * (uint64(c) + 1)}
	}
	for name, totals := range map[string]traffic.Totals{
		"no class":    {},
		"every class": every,
		"one class":   {traffic.ClassMalformed: {Packets: 1, Bytes: 14}},
	} {
		if diff := cmp.Diff(totals, TotalsOf(CountsOf(totals))); diff != "" {
			t.Errorf("%s, by class (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(totals, TotalsOfProtocols(ProtocolsOf(totals, traffic.Rates{}))); diff != "" {
			t.Errorf("%s, by protocol (-want +got):\n%s", name, diff)
		}
	}
}

func TestTotalsOfUnknownClassAndNegativeNumbers(t *testing.T) {
	got := TotalsOf(Counts{
		{Class: "IPv9/NEW", Packets: 3, Bytes: 300},
		{Class: "Other", Packets: 1, Bytes: 60},
		{Class: "ARP", Packets: -5, Bytes: math.MinInt64},
	})
	want := traffic.Totals{traffic.ClassOther: {Packets: 4, Bytes: 360}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestCountsOfSaturates(t *testing.T) {
	huge := traffic.Totals{traffic.ClassARP: {Packets: math.MaxUint64, Bytes: math.MaxInt64}}
	want := Counts{{Class: "ARP", Packets: math.MaxInt64, Bytes: math.MaxInt64}}
	if diff := cmp.Diff(want, CountsOf(huge)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestProtocolsOfSortsByPackets(t *testing.T) {
	totals := traffic.Totals{traffic.ClassOther: {Packets: 5}}
	totals[traffic.IP(traffic.IPv4, 6)] = traffic.Counts{Packets: 1}
	totals[traffic.IP(traffic.IPv6, 17)] = traffic.Counts{Packets: 5}
	var names []string
	for _, p := range ProtocolsOf(totals, traffic.Rates{}) {
		names = append(names, p.Family+" "+p.Protocol)
	}
	if diff := cmp.Diff([]string{"IPv6 UDP", "Other Other", "IPv4 TCP"}, names); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
