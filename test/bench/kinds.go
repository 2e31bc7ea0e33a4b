// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"

	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// The budgets of a frame, as ratios of costs over an empty program: of the counting program's to xdp1's.
var (
	plainIP  = budget{bound: 0.65, unit: " xdp1"}
	frequent = budget{bound: 0.90, unit: " xdp1"}
	// What xdp1 does not parse has no cost there to be compared with.
	worst = budget{bound: 3.5, unit: " xdp1 on " + reference}
	// Beyond the budgets, which are of frames with four tags or eight extension headers: for those who ask what both cost.
	both = budget{}
)

// reference is the kind of frame to which worst refers, and the one that is sent live.
const reference = "UDP over IPv4"

// kind is a row of the table of costs.
type kind struct {
	name   string
	frame  frames.Frame
	budget budget
}

// kinds returns the frames to measure, the reference first.
func kinds() []kind {
	udp4 := named("UDP over IPv4")
	// Of 8 extension headers: a longer chain is not parsed to its end, and is malformed.
	chain := named("IPv6 with 8 extension headers of all kinds")
	return []kind{
		{reference, udp4.Cut(64), plainIP},
		{"TCP over IPv4", named("a full frame of TCP over IPv4"), plainIP},
		{"TCP over IPv6", named("TCP over IPv6"), frequent},
		{"UDP over IPv6", named("UDP over IPv6"), frequent},
		{"802.1Q, TCP over IPv4", named("TCP over IPv4 in a VLAN"), frequent},
		{"802.1Q, UDP over IPv6", named("UDP over IPv6 in a VLAN"), frequent},
		{"ARP", named("an ARP request"), frequent},
		{"another ethertype (LLDP)", named("LLDP"), worst},
		{"IPv4 cut off in its header", udp4.Cut(20), worst},
		{"IPv4 with options", named("IPv4 with IHL 15"), worst},
		{"IPv6 fragment", named("the first IPv6 fragment"), worst},
		{"IPv6, hop-by-hop and dest. options", behindOptions(named("IPv6 with destination options")), worst},
		{"802.1ad and 802.1Q, UDP over IPv4", named("UDP over IPv4 in 802.1ad and 802.1Q tags"), worst},
		{"4 tags, UDP over IPv4", named("UDP over IPv4 in four tags"), worst},
		{"IPv6, 8 extension headers", chain, worst},
		{"4 tags, IPv6, 8 extension headers", in4Tags(chain), both},
	}
}

// named returns one of package frames' frames.
func named(name string) frames.Frame {
	all := frames.All()
	i := slices.IndexFunc(all, func(f frames.Frame) bool { return f.Name == name })
	if i < 0 {
		panic(fmt.Sprintf("there is no frame %q", name))
	}
	return all[i]
}

// in4Tags returns an untagged frame with four tags. Cuts are not adjusted.
func in4Tags(f frames.Frame) frames.Frame {
	const addresses = 12
	f.Data = slices.Insert(slices.Clone(f.Data), addresses,
		0x91, 0x00, 0, 1,
		0x88, 0xA8, 0, 2,
		0x81, 0x00, 0, 3,
		0x81, 0x00, 0, 4)
	return f
}

// behindOptions returns an untagged IPv6 frame with hop-by-hop options before its first extension header. Cuts are not
// adjusted.
func behindOptions(f frames.Frame) frames.Frame {
	const (
		next = 14 + 6  // the next header field of IPv6
		end  = 14 + 40 // of the IPv6 header
	)
	f.Data = slices.Insert(slices.Clone(f.Data), end, f.Data[next], 0, 0, 0, 0, 0, 0, 0)
	f.Data[next] = 0
	return f
}
