// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

func TestTopProtocols(t *testing.T) {
	tcp4 := func(packets int64) v1alpha1.ProtocolCounts {
		return v1alpha1.ProtocolCounts{Family: "IPv4", Protocol: "TCP", Packets: packets}
	}
	tcp6 := func(packets int64) v1alpha1.ProtocolCounts {
		return v1alpha1.ProtocolCounts{Family: "IPv6", Protocol: "TCP", Packets: packets}
	}
	other := func(protocol string, packets int64) v1alpha1.ProtocolCounts {
		return v1alpha1.ProtocolCounts{Family: "IPv4", Protocol: protocol, Packets: packets}
	}
	for name, test := range map[string]struct {
		protocols []v1alpha1.ProtocolCounts
		want      string
	}{
		"no protocols":                               {nil, ""},
		"no packets":                                 {[]v1alpha1.ProtocolCounts{tcp4(0)}, ""},
		"one protocol has all packets":               {[]v1alpha1.ProtocolCounts{tcp4(5)}, "TCP 100%"},
		"families of one protocol are added":         {[]v1alpha1.ProtocolCounts{tcp4(1), other("UDP", 2), tcp6(2)}, "TCP 60% UDP 40%"},
		"a family without packets is not counted":    {[]v1alpha1.ProtocolCounts{tcp4(0), tcp6(3)}, "TCP 100%"},
		"more than three protocols":                  {[]v1alpha1.ProtocolCounts{other("ARP", 1), other("ICMP", 2), other("UDP", 3), tcp4(4)}, "TCP 40% UDP 30% ICMP 20%"},
		"almost all packets are not written as 100%": {[]v1alpha1.ProtocolCounts{tcp4(999), other("ARP", 1)}, "TCP >99% ARP <1%"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := topProtocols(test.protocols); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
