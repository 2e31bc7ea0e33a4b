// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"encoding/binary"
	"net"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// SentByNode returns packets that a node sends to a group or as a broadcast, as generic XDP sees their copies: without an
// Ethernet header. Class is what each would count as if its first bytes were an Ethernet header.
func SentByNode() []Frame {
	linkLocal, global := net.ParseIP("fe80::1234:56ff:fe78:9abc"), net.ParseIP("2001:db8:a1b2::1")
	multicast6 := net.ParseIP("ff02::fb")
	igmp := gopacket.Payload{0x16, 0, 0x09, 0x04, 224, 1, 2, 3} // a report of version 2
	alert := layers.IPv4Option{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}
	route := layers.IPv4Option{OptionType: 7, OptionLength: 7, OptionData: []byte{4, 0, 0, 0, 0}}

	return []Frame{
		udp4("mDNS over IPv4", traffic.ClassOther, net.IPv4(192, 0, 2, 1), net.IPv4(224, 0, 0, 251), 60),
		udp4("a datagram larger than the MTU to a group", traffic.ClassOther, net.IPv4(192, 0, 2, 1), net.IPv4(239, 1, 2, 3), 3000),
		udp4("a datagram to a group from 8.6.0.1, which looks like the EtherType of ARP", traffic.ClassARP,
			net.IPv4(8, 6, 0, 1), net.IPv4(239, 1, 2, 3), 20),
		udp4("a datagram to a group from 8.0.69.1, which looks like the EtherType of IPv4", traffic.IP(traffic.IPv4, 5353%256),
			net.IPv4(8, 0, 69, 1), net.IPv4(239, 1, 2, 3), 20),
		udp4("a datagram to a group from 134.221.96.1, which looks like IPv6 that is longer than the frame", traffic.IP(traffic.IPv6, 40000/256),
			net.IPv4(134, 221, 96, 1), net.IPv4(239, 1, 0, 48), 50),
		udp4("a datagram to a group from 129.0.0.1, which looks like a VLAN tag", traffic.ClassOther,
			net.IPv4(129, 0, 0, 1), net.IPv4(239, 1, 2, 3), 20),
		udp4("a limited broadcast from 0.0.0.0", traffic.ClassOther, net.IPv4zero, net.IPv4bcast, 300),
		udp4("a broadcast to the subnet", traffic.ClassOther, net.IPv4(10, 1, 2, 3), net.IPv4(10, 1, 2, 255), 20),
		packet("IGMP, which has the Router Alert option", traffic.ClassOther,
			&layers.IPv4{Version: 4, TTL: 1, Protocol: 2, SrcIP: net.IPv4(192, 0, 2, 1), DstIP: net.IPv4(224, 1, 2, 3), Options: []layers.IPv4Option{alert}}, igmp),
		packet("IPv4 with options of two words", traffic.ClassOther,
			&layers.IPv4{Version: 4, TTL: 1, Protocol: 17, SrcIP: net.IPv4(192, 0, 2, 1), DstIP: net.IPv4(239, 1, 2, 3), Options: []layers.IPv4Option{route}}, payload(20)),
		packet("the shortest IPv4 packet", traffic.ClassOther,
			&layers.IPv4{Version: 4, TTL: 1, Protocol: 253, SrcIP: net.IPv4(192, 0, 2, 1), DstIP: net.IPv4(239, 1, 2, 3)}),
		udp6("mDNS over IPv6, from a link-local address", linkLocal, multicast6),
		udp6("mDNS over IPv6, from a global address", global, multicast6),
		packet6("a report of MLD, which begins with hop-by-hop options", linkLocal, hopByHop),
		packet6("a report of MLD before the node has an address", net.IPv6zero, hopByHop),
		packet6("an echo request to all nodes", linkLocal, 58),
		packet6("a fragment from a link-local address", linkLocal, fragment),
		packet("OSPF over IPv6, the header only", traffic.ClassOther,
			&layers.IPv6{Version: 6, HopLimit: 1, NextHeader: 89, SrcIP: linkLocal, DstIP: multicast6}),
	}
}

// LikeSentByNode returns frames and packets that differ in one property from those of SentByNode. They must be counted.
func LikeSentByNode() []Frame {
	global := net.ParseIP("2001:db8:a1b2::1")
	multicast4, broadcast := net.IPv4(239, 1, 2, 3), net.IPv4(8, 0, 255, 255)
	own4 := udp4("", traffic.ClassOther, net.IPv4(192, 0, 2, 1), multicast4, 60)
	own6 := udp6("", global, net.ParseIP("ff02::fb"))
	unicast := own6
	unicast.Data = slices.Clone(own6.Data)
	unicast.Data[24] = 0x20

	list := []Frame{
		patched(own4, "IPv4 with a wrong checksum", traffic.ClassOther, 11, own4.Data[11]^1),
		withChecksum(patched(own4, "IPv4 with a total length that is one too large", traffic.ClassOther, 3, own4.Data[3]+1)),
		cut(own4, "IPv4 with its last byte cut off"),
		withChecksum(patched(own4, "IPv4 with a header of three words", traffic.ClassOther, 0, 0x43)),
		withChecksum(patched(own4, "IPv4 with six words and no Router Alert", traffic.ClassOther, 0, 0x46)),
		cut(own6, "IPv6 with its last byte cut off"),
		patched(own6, "IPv6 with version 7", traffic.ClassOther, 0, 0x70),
		{Name: "IPv6 to one node", Class: traffic.ClassOther, Data: unicast.Data},
		packet6("a report of MLD from a global address", global, hopByHop),

		// Frames whose MAC addresses are made so that the frame also is a packet to a group.
		disguised4("IPv4 disguised as IPv4 of a node", traffic.IP(traffic.IPv4, udp), 0x0800, []byte{0x45, 0, 0, 60}),
		disguised4("IPv6 disguised as IPv4 of a node", traffic.IP(traffic.IPv6, 59), 0x86DD, []byte{0x60, 0, 0xEF, 1, 0, 20, 59}),
		disguised4("ARP disguised as IPv4 of a node", traffic.ClassARP, 0x0806, []byte{0, 1, 8, 0, 6, 4}),
		disguised4("a tagged frame disguised as IPv4 of a node", traffic.IP(traffic.IPv4, 0), 0x8100, []byte{0, 1, 8, 0, 0x45}),
		disguised4("a frame of two tags disguised as IPv4 of a node", traffic.ClassOther, 0x88A8, []byte{0, 1, 0x81, 0, 0, 1, 0x88, 0xCC}),
		disguised6("IPv4 disguised as IPv6 of a node", traffic.IP(traffic.IPv4, udp), 0x0800, []byte{0x45, 0, 0, 60}),
		disguised6("ARP disguised as IPv6 of a node", traffic.ClassARP, 0x0806, []byte{0, 1, 8, 0, 6, 4}),
	}
	// What looks like an EtherType here is that of a frame that IPv4 would accept.
	list = append(list, udp4("a large broadcast from 8.0.69.1", traffic.IP(traffic.IPv4, 5353%256), net.IPv4(8, 0, 69, 1), broadcast, 2100))
	return list
}

// packet puts an IP packet without an Ethernet header together.
func packet(name string, class traffic.Class, stack ...gopacket.SerializableLayer) Frame {
	buffer := gopacket.NewSerializeBuffer()
	must(gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...))
	return Frame{Name: name, Class: class, Data: slices.Clone(buffer.Bytes())}
}

func udp4(name string, class traffic.Class, from, to net.IP, size int) Frame {
	ip := &layers.IPv4{Version: 4, TTL: 1, Protocol: udp, SrcIP: from.To4(), DstIP: to.To4()}
	return packet(name, class, ip, udpTo(5353, ip), payload(size))
}

func udp6(name string, from, to net.IP) Frame {
	ip := &layers.IPv6{Version: 6, HopLimit: 1, NextHeader: udp, SrcIP: from, DstIP: to}
	return packet(name, traffic.ClassOther, ip, udpTo(5353, ip), payload(60))
}

func packet6(name string, from net.IP, next uint8) Frame {
	ip := &layers.IPv6{Version: 6, HopLimit: 1, NextHeader: layers.IPProtocol(next), SrcIP: from, DstIP: net.ParseIP("ff02::1")}
	return packet(name, traffic.ClassOther, ip, extension(next, 58, 0), payload(24))
}

func cut(f Frame, name string) Frame {
	f.Name, f.Data = name, slices.Clone(f.Data[:len(f.Data)-1])
	return f
}

// disguised4 is an Ethernet frame of 74 bytes whose first 20 bytes also are an IPv4 header of this length.
func disguised4(name string, class traffic.Class, etherType uint16, rest []byte) Frame {
	data := make([]byte, 74)
	copy(data, []byte{0x45, 0, 0, byte(len(data)), 0, 0, 0, 0, 1, udp})
	binary.BigEndian.PutUint16(data[12:], etherType)
	copy(data[14:], rest)
	data[23] = udp // the protocol of IPv4, if it is that
	return withChecksum(Frame{Name: name, Class: class, Data: data})
}

// disguised6 is an Ethernet frame of 74 bytes whose first 40 bytes also are an IPv6 header of this length, to a group.
func disguised6(name string, class traffic.Class, etherType uint16, rest []byte) Frame {
	data := make([]byte, 74)
	copy(data, []byte{0x60, 0, 0, 0, 0, byte(len(data) - 40), udp, 1})
	binary.BigEndian.PutUint16(data[12:], etherType)
	copy(data[14:], rest)
	data[23], data[24], data[25] = udp, 0xFF, 0x02
	return Frame{Name: name, Class: class, Data: data}
}

// withChecksum sets the checksum of the IPv4 header at the beginning.
func withChecksum(f Frame) Frame {
	header := f.Data[:f.Data[0]%16*4]
	header[10], header[11] = 0, 0
	var sum uint32
	for at := 0; at < len(header); at += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[at:]))
	}
	for sum > 0xFFFF {
		sum = sum&0xFFFF + sum>>16
	}
	binary.BigEndian.PutUint16(header[10:], ^uint16(sum))
	return f
}
