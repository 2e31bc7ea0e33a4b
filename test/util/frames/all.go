// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// All returns frames of every kind, each with a name of its own. None is longer than 1514 bytes.
func All() []Frame {
	return slices.Concat(Common(), tagged(), ipv4(), ipv6(), others(), Protocols())
}

// Common returns what a network is full of: one frame each of the frequent kinds, all sound.
func Common() []Frame {
	udp4, tcp4, udp6, tcp6 := ip4(udp), ip4(tcp), ip6(udp), ip6(tcp)
	return []Frame{
		build("TCP over IPv4", v4(tcp), 2, ethernet(typeIPv4), tcp4, tcpTo(443, tcp4), payload(20)),
		build("UDP over IPv4", v4(udp), 2, ethernet(typeIPv4), udp4, udpTo(53, udp4), payload(30)),
		build("ICMP over IPv4", v4(1), 2, ethernet(typeIPv4), ip4(1),
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0)}, payload(56)),
		build("TCP over IPv6", v6(tcp), 2, ethernet(typeIPv6), tcp6, tcpTo(443, tcp6), payload(20)),
		build("UDP over IPv6", v6(udp), 2, ethernet(typeIPv6), udp6, udpTo(53, udp6), payload(30)),
		build("ICMPv6", v6(58), 2, ethernet(typeIPv6), ip6(58), gopacket.Payload{128, 0, 0, 0, 0, 1, 0, 1}, payload(56)),
		arpFrame("an ARP request", layers.ARPRequest),
		build("a full frame of TCP over IPv4", v4(tcp), 2, ethernet(typeIPv4), tcp4, tcpTo(443, tcp4), payload(1460)),
		build("TCP over IPv4 in a VLAN", v4(tcp), 3, ethernet(type8021Q), tag(typeIPv4), tcp4, tcpTo(443, tcp4), payload(20)),
		build("UDP over IPv6 in a VLAN", v6(udp), 3, ethernet(type8021Q), tag(typeIPv6), udp6, udpTo(53, udp6), payload(30)),
	}
}

// Protocols returns a frame of each of the 256 IP protocol numbers over IPv4 and over IPv6. The numbers of the IPv6
// extension headers, which are walked through, are those of a non-first fragment, which is not.
func Protocols() []Frame {
	var all []Frame
	for n := range 256 {
		number := uint8(n)
		all = append(all, build(fmt.Sprintf("IPv4 protocol %d", n), v4(number), 2, ethernet(typeIPv4), ip4(number), payload(26)))
		switch number {
		case hopByHop, routing, fragment, ah, options:
			all = append(all, build(fmt.Sprintf("IPv6 protocol %d in a non-first fragment", n), v6(number), 3,
				ethernet(typeIPv6), ip6(fragment), fragmentAt(number, 185, false), payload(26)))
		default:
			all = append(all, build(fmt.Sprintf("IPv6 protocol %d", n), v6(number), 2, ethernet(typeIPv6), ip6(number), payload(26)))
		}
	}
	return all
}

func v4(number uint8) traffic.Class { return traffic.IP(traffic.IPv4, number) }
func v6(number uint8) traffic.Class { return traffic.IP(traffic.IPv6, number) }

// arpFrame makes the fixed 8 bytes the header that has to be whole: what follows depends on the hardware.
func arpFrame(name string, operation uint16, tpids ...layers.EthernetType) Frame {
	stack := tags(typeARP, tpids...)
	f := build(name, traffic.ClassARP, len(stack), append(stack, arp(operation))...)
	f.Cuts = append(f.Cuts, f.Cuts[len(f.Cuts)-1]+8)
	return f
}

func tagged() []Frame {
	var all []Frame
	inner := func(what string, tpids ...layers.EthernetType) {
		n := len(tpids)
		udp4, tcp6 := ip4(udp), ip6(tcp)
		with := func(next layers.EthernetType, rest ...gopacket.SerializableLayer) []gopacket.SerializableLayer {
			return append(tags(next, tpids...), rest...)
		}
		all = append(all,
			build("UDP over IPv4 in "+what, v4(udp), n+2, with(typeIPv4, udp4, udpTo(53, udp4), payload(30))...),
			build("TCP over IPv6 in "+what, v6(tcp), n+2, with(typeIPv6, tcp6, tcpTo(443, tcp6), payload(20))...),
			build("destination options over IPv6 in "+what, v6(udp), n+3,
				with(typeIPv6, ip6(options), extension(options, udp, 1), payload(30))...),
			arpFrame("an ARP reply in "+what, layers.ARPReply, tpids...),
			build("MPLS in "+what, traffic.ClassOther, n+1,
				with(typeMPLS, &layers.MPLS{Label: 16, StackBottom: true, TTL: 64}, udp4, payload(30))...),
			build("LLC in "+what, traffic.ClassOther, n+1,
				with(layers.EthernetType(30), gopacket.Payload{0x42, 0x42, 3}, payload(27))...),
		)
	}
	inner("an 802.1Q tag", type8021Q)
	inner("an 802.1ad tag", type1AD)
	inner("a 0x9100 tag", type9100)
	inner("two 802.1Q tags", type8021Q, type8021Q)
	inner("802.1ad and 802.1Q tags", type1AD, type8021Q)
	inner("0x9100 and 802.1ad tags", type9100, type1AD)
	inner("802.1Q and 0x9100 tags", type8021Q, type9100)
	inner("three tags", type1AD, type9100, type8021Q)
	inner("four tags", type9100, type1AD, type8021Q, type8021Q)

	// A fifth tag is not parsed: its ethertype is one like any other.
	udp4 := ip4(udp)
	five := append(tags(typeIPv4, type1AD, type8021Q, type8021Q, type9100, type8021Q), udp4, udpTo(53, udp4), payload(30))
	all = append(all, build("UDP over IPv4 in five tags", traffic.ClassOther, 5, five...))

	ihl := append(tags(typeIPv4, type8021Q), udp4, udpTo(53, udp4), payload(30))
	bad := build("", traffic.ClassMalformed, 3, ihl...)
	all = append(all,
		patched(bad, "IPv4 with IHL 4 in a VLAN", traffic.ClassMalformed, 18, 0x44),
		patched(bad, "IPv4 with version 6 in a VLAN", traffic.ClassMalformed, 18, 0x65),
	)
	return all
}

func ipv4() []Frame {
	udp4 := ip4(udp)
	plain := build("", v4(udp), 2, ethernet(typeIPv4), udp4, udpTo(53, udp4), payload(60))

	withOptions := ip4(tcp)
	for range 40 {
		withOptions.Options = append(withOptions.Options, layers.IPv4Option{OptionType: 1})
	}
	first, middle := ip4(udp), ip4(udp)
	first.Flags, middle.FragOffset = layers.IPv4MoreFragments, 185

	inner := ip4(tcp)
	outer := func(protocol uint8) []gopacket.SerializableLayer {
		return []gopacket.SerializableLayer{ethernet(typeIPv4), ip4(protocol)}
	}
	vxlan := ip4(udp)
	all := []Frame{
		build("IPv4 with IHL 15", v4(tcp), 2, ethernet(typeIPv4), withOptions, tcpTo(80, withOptions), payload(20)),
		build("the first IPv4 fragment", v4(udp), 2, ethernet(typeIPv4), first, udpTo(53, first), payload(64)),
		build("a non-first IPv4 fragment", v4(udp), 2, ethernet(typeIPv4), middle, payload(64)),
		patched(plain, "IPv4 with a total length below its header's", v4(udp), 17, 4),
		patched(plain, "IPv4 with a total length beyond the frame", v4(udp), 16, 0xFF),
		patched(plain, "IPv4 with a wrong checksum", v4(udp), 24, plain.Data[24]^0xFF),
		patched(plain, "IPv4 with version 0", traffic.ClassMalformed, 14, 0x05),
		patched(plain, "IPv4 with version 5", traffic.ClassMalformed, 14, 0x55),
		patched(plain, "IPv4 with version 6", traffic.ClassMalformed, 14, 0x65),
		build("IPv6 under the ethertype of IPv4", traffic.ClassMalformed, 2, ethernet(typeIPv4), ip6(tcp), payload(20)),

		build("GRE", v4(47), 2, append(outer(47), &layers.GRE{Protocol: typeIPv4}, inner, tcpTo(80, inner), payload(20))...),
		build("IPv4 in IPv4", v4(4), 2, append(outer(4), inner, tcpTo(80, inner), payload(20))...),
		build("IPv6 in IPv4", v4(41), 2, append(outer(41), ip6(udp), payload(30))...),
		build("ESP over IPv4", v4(esp), 2, append(outer(esp), payload(60))...),
		build("AH over IPv4", v4(ah), 2, append(outer(ah), extension(ah, tcp, 4), payload(30))...),
		build("VXLAN", v4(udp), 2, ethernet(typeIPv4), vxlan, udpTo(4789, vxlan), &layers.VXLAN{ValidIDFlag: true, VNI: 7},
			ethernet(typeARP), arp(layers.ARPRequest)),
	}
	for ihl := range byte(5) {
		all = append(all, patched(plain, fmt.Sprintf("IPv4 with IHL %d", ihl), traffic.ClassMalformed, 14, 0x40|ihl))
	}

	// The frame ends with its options, and one byte before.
	end := build("", v4(tcp), 2, ethernet(typeIPv4), withOptions)
	all = append(all, renamed(end, "IPv4 with IHL 15 and nothing behind"))
	return append(all, renamed(end.Cut(end.Cuts[1]-1), "IPv4 with IHL 15 and its last option cut off"))
}

func ipv6() []Frame {
	udp6 := ip6(udp)
	plain := build("", v6(udp), 2, ethernet(typeIPv6), udp6, udpTo(53, udp6), payload(60))
	all := []Frame{
		patched(plain, "IPv6 with version 4", traffic.ClassMalformed, 14, 0x45),
		patched(plain, "IPv6 with version 7", traffic.ClassMalformed, 14, 0x70),
		patched(plain, "IPv6 with a traffic class of all ones", v6(udp), 14, 0x6F),
		patched(plain, "IPv6 with a payload length of 0", v6(udp), 19, 0),
		build("IPv4 under the ethertype of IPv6", traffic.ClassMalformed, 2, ethernet(typeIPv6), ip4(tcp), payload(40)),

		chain("IPv6 with hop-by-hop options", v6(tcp), hopByHop),
		chain("IPv6 with a routing header", v6(tcp), routing),
		chain("IPv6 with destination options", v6(tcp), options),
		chain("an atomic IPv6 fragment", v6(tcp), fragment),
		chain("IPv6 with AH", v6(tcp), ah),
		chain("IPv6 with every extension header", v6(tcp), hopByHop, options, routing, fragment, ah, options),
		chain("IPv6 with hop-by-hop options where they do not belong", v6(tcp), options, hopByHop),
		chain("IPv6 with two AH", v6(tcp), ah, ah),
		chain("IPv6 with 8 extension headers", v6(tcp), options, options, options, options, options, options, options, options),
		chain("IPv6 with 8 extension headers of all kinds", v6(tcp), hopByHop, routing, fragment, ah, options, hopByHop, ah, fragment),
		chain("IPv6 with 8 AH", v6(tcp), ah, ah, ah, ah, ah, ah, ah, ah),
		chain("IPv6 with 9 extension headers", traffic.ClassMalformed,
			options, options, options, options, options, options, options, options, options),
		chain("IPv6 with a fragment header as the ninth", traffic.ClassMalformed,
			hopByHop, routing, fragment, ah, options, hopByHop, ah, options, fragment),

		build("the first IPv6 fragment", v6(udp), 3,
			ethernet(typeIPv6), ip6(fragment), fragmentAt(udp, 0, true), udpTo(53, udp6), payload(64)),
		build("the first IPv6 fragment, with destination options", v6(udp), 4,
			ethernet(typeIPv6), ip6(fragment), fragmentAt(options, 0, true), extension(options, udp, 0), payload(64)),
		build("a non-first IPv6 fragment", v6(udp), 3,
			ethernet(typeIPv6), ip6(fragment), fragmentAt(udp, 1, true), payload(64)),
		build("the last IPv6 fragment", v6(tcp), 3,
			ethernet(typeIPv6), ip6(fragment), fragmentAt(tcp, 0x1FFF, false), payload(64)),
		build("a non-first IPv6 fragment behind hop-by-hop options", v6(udp), 4,
			ethernet(typeIPv6), ip6(hopByHop), extension(hopByHop, fragment, 0), fragmentAt(udp, 185, true), payload(64)),
		build("a non-first IPv6 fragment that names destination options", v6(options), 3,
			ethernet(typeIPv6), ip6(fragment), fragmentAt(options, 185, true), payload(64)),
		patched(build("", v6(tcp), 3, ethernet(typeIPv6), ip6(fragment), fragmentAt(tcp, 0, false), payload(64)),
			"an IPv6 fragment header with a reserved byte set", v6(tcp), 14+40+1, 0xFF),
		patched(build("", v6(tcp), 3, ethernet(typeIPv6), ip6(fragment), fragmentAt(tcp, 0, false), payload(64)),
			"an IPv6 fragment header with the reserved bits set", v6(tcp), 14+40+3, 0x06),

		build("ESP over IPv6", v6(esp), 2, ethernet(typeIPv6), ip6(esp), payload(60)),
		build("ESP behind AH", v6(esp), 3, ethernet(typeIPv6), ip6(ah), extension(ah, esp, 4), payload(60)),
		build("no next header", v6(noNext), 2, ethernet(typeIPv6), ip6(noNext)),
		build("no next header behind destination options", v6(noNext), 3,
			ethernet(typeIPv6), ip6(options), extension(options, noNext, 0)),
		build("a Mobility header", v6(mobility), 2, ethernet(typeIPv6), ip6(mobility), extension(options, noNext, 1)),
		build("a HIP header", v6(hip), 2, ethernet(typeIPv6), ip6(hip), extension(options, noNext, 4)),
		build("a Shim6 header behind hop-by-hop options", v6(shim6), 3,
			ethernet(typeIPv6), ip6(hopByHop), extension(hopByHop, shim6, 0), extension(options, tcp, 0), payload(20)),
		build("IPv4 in IPv6", v6(4), 2, ethernet(typeIPv6), ip6(4), ip4(udp), payload(30)),

		build("the longest options", v6(tcp), 3,
			ethernet(typeIPv6), ip6(options), extension(options, tcp, 150), payload(100)),
		build("an extension header that ends with the frame", v6(udp), 3,
			ethernet(typeIPv6), ip6(options), extension(options, udp, 5)),
	}
	// An extension header that announces more than there is.
	for _, kind := range []uint8{hopByHop, routing, options, ah} {
		f := build("", v6(tcp), 3, ethernet(typeIPv6), ip6(kind), extension(kind, tcp, 2), payload(40))
		all = append(all, patched(f, fmt.Sprintf("extension header %d longer than the frame", kind), traffic.ClassMalformed, 14+40+1, 255))
	}
	return all
}

func others() []Frame {
	udp4 := ip4(udp)
	other := func(name string, t layers.EthernetType, rest ...gopacket.SerializableLayer) Frame {
		f := build(name, traffic.ClassOther, 1, append([]gopacket.SerializableLayer{ethernet(t)}, rest...)...)
		binary.BigEndian.PutUint16(f.Data[12:], uint16(t)) // gopacket makes a length of what is less than 0x600
		return f
	}
	header := func(name string, class traffic.Class, t layers.EthernetType) Frame {
		f := build(name, class, 1, ethernet(t))
		f.Data = f.Data[:14]
		return f
	}
	snap := build("SNAP with IPv4", traffic.ClassOther, 1,
		&layers.Ethernet{SrcMAC: source, DstMAC: destination, EthernetType: layers.EthernetTypeLLC, Length: 1},
		gopacket.Payload{0xAA, 0xAA, 3, 0, 0, 0, 8, 0}, udp4, udpTo(53, udp4), payload(30))
	return []Frame{
		arpFrame("an ARP reply", layers.ARPReply),
		snap,
		other("spanning tree (LLC)", 38, gopacket.Payload{0x42, 0x42, 3}, payload(35)),
		other("an 802.3 length of 1500", 1500, payload(100)),
		other("an 802.3 length of 0", 0, payload(46)),
		other("an ethertype that is VLAN's byte by byte swapped", 0x0081, udp4, payload(30)),
		other("an ethertype that is IPv4's byte by byte swapped", 0x0008, udp4, payload(30)),
		other("RARP", 0x8035, arp(3)),
		other("MPLS unicast", typeMPLS, &layers.MPLS{Label: 16, StackBottom: true, TTL: 64}, udp4, payload(30)),
		other("MPLS multicast", layers.EthernetTypeMPLSMulticast, &layers.MPLS{Label: 16, StackBottom: true, TTL: 64}, udp4, payload(30)),
		other("PPPoE discovery", layers.EthernetTypePPPoEDiscovery, payload(46)),
		other("a PPPoE session with IPv4", layers.EthernetTypePPPoESession,
			&layers.PPPoE{Version: 1, Type: 1, SessionId: 7}, gopacket.Payload{0, 0x21}, udp4, payload(30)),
		other("LLDP", layers.EthernetTypeLinkLayerDiscovery, payload(46)),
		other("EAPOL", layers.EthernetTypeEAPOL, payload(46)),
		other("ethertype 0xFFFF", 0xFFFF, payload(46)),

		header("an Ethernet header alone, of another ethertype", traffic.ClassOther, layers.EthernetTypeLinkLayerDiscovery),
		header("an Ethernet header alone, of IPv4", traffic.ClassMalformed, typeIPv4),
		header("an Ethernet header alone, of IPv6", traffic.ClassMalformed, typeIPv6),
		header("an Ethernet header alone, of ARP", traffic.ClassMalformed, typeARP),
		header("an Ethernet header alone, of a VLAN", traffic.ClassMalformed, type8021Q),
	}
}

func renamed(f Frame, name string) Frame {
	f.Name = name
	return f
}
