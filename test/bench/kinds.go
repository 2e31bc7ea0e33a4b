// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"

	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// allowance is the budget of a kind of frame. The zero value is none.
type allowance struct {
	ratio   float64 // the cost over the empty program as a ratio of xdp1's, where that takes enough ns to be compared with
	cycles  float64 // the cost over the empty program in cycles of the core
	headers int     // extension headers; cycles is then for each, over the same program for plain UDP over IPv6
}

var (
	plainIP  = allowance{ratio: 0.65}
	frequent = allowance{ratio: 0.90}
	// What xdp1 does not parse has no cost there to be compared with. This includes frames with four tags.
	rare  = allowance{cycles: 30}
	chain = allowance{cycles: 6, headers: 8}
	// Beyond the budgets, which are of frames with four tags or eight extension headers: for those who ask what both cost.
	both = allowance{}
)

// Where xdp1 takes no more than enough ns over the empty program, a ratio to it is one of two numbers near zero: it depends on
// the address of the machine code and on nothing else. There ours may take no more than barely over it.
const (
	enough = 3 // ns
	barely = 0.5
)

// judge judges what ours costs for the kind, and returns the verdict. A cycle takes so many ns.
func (k kind) judge(budgets *ledger, c costs, plainIPv6, cycle float64) string {
	what, a := "cost of "+k.name, k.allowance
	switch {
	case a.ratio != 0 && c[xdp1].ns > enough:
		return budgets.judge(what, budget{bound: a.ratio, unit: " xdp1"}, c[plain].toXDP1)
	case a.ratio != 0:
		return budgets.judge(what, budget{bound: barely, unit: " ns over xdp1"}, c[plain].ns-c[xdp1].ns)
	case a.headers != 0:
		each := (c[plain].ns - plainIPv6) / float64(a.headers)
		return budgets.judge(what, budget{bound: a.cycles, unit: " cycles for each header"}, each/cycle)
	case a.cycles != 0:
		return budgets.judge(what, budget{bound: a.cycles, unit: " cycles"}, c[plain].ns/cycle)
	default:
		return short(c[plain].ns/cycle) + " cycles, no budget"
	}
}

// reference is the kind of frame that is sent live.
const reference = "UDP over IPv4"

// kind is a row of the table of costs.
type kind struct {
	name  string
	frame frames.Frame
	allowance
}

// kinds returns the frames to measure, the reference first.
func kinds() []kind {
	udp4 := named("UDP over IPv4")
	// Of 8 extension headers: a longer chain is not parsed to its end, and is malformed.
	extended := named("IPv6 with 8 extension headers of all kinds")
	return []kind{
		{reference, udp4.Cut(64), plainIP},
		{"TCP over IPv4", named("a full frame of TCP over IPv4"), plainIP},
		{"TCP over IPv6", named("TCP over IPv6"), frequent},
		{"UDP over IPv6", named("UDP over IPv6"), frequent},
		{"802.1Q, TCP over IPv4", named("TCP over IPv4 in a VLAN"), frequent},
		{"802.1Q, UDP over IPv6", named("UDP over IPv6 in a VLAN"), frequent},
		{"ARP", named("an ARP request"), frequent},
		{"another ethertype (LLDP)", named("LLDP"), rare},
		{"IPv4 cut off in its header", udp4.Cut(20), rare},
		{"IPv4 with options", named("IPv4 with IHL 15"), rare},
		{"IPv6 fragment", named("the first IPv6 fragment"), rare},
		{"IPv6, hop-by-hop and dest. options", behindOptions(named("IPv6 with destination options")), rare},
		{"802.1ad and 802.1Q, UDP over IPv4", named("UDP over IPv4 in 802.1ad and 802.1Q tags"), rare},
		{"4 tags, UDP over IPv4", named("UDP over IPv4 in four tags"), rare},
		{"IPv6, 8 extension headers", extended, chain},
		{"4 tags, IPv6, 8 extension headers", in4Tags(extended), both},
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
