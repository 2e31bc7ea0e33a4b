// SPDX-License-Identifier: Apache-2.0

// Package frames makes frames of every kind that the counting program distinguishes, and sends them.
package frames

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// Frame is an Ethernet frame without FCS and the class that it must count as.
type Frame struct {
	Name  string // a sentence that says the case
	Class traffic.Class
	Data  []byte

	// Cuts are the lengths at which each header ends that has to be whole for the class to be known, ascending. The
	// last may lie behind the end of Data: then a header announces more than there is, and the class is Malformed.
	Cuts []int
}

// Cut returns the frame cut short to n bytes, at least the 14 of the Ethernet header. Cut within a header it is
// malformed; cut behind the last one its class stays.
func (f Frame) Cut(n int) Frame {
	cut := f
	cut.Name = fmt.Sprintf("%s, cut at %d", f.Name, n)
	cut.Data = slices.Clip(f.Data[:n])
	if n < f.Cuts[len(f.Cuts)-1] {
		cut.Class = traffic.ClassMalformed
	}
	return cut
}

// The addresses of all frames: locally administered, and of no interface, so that a stack that receives the frames
// drops them at once.
var (
	source       = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x51}
	destination  = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x52}
	source4      = net.IPv4(192, 0, 2, 1)
	destination4 = net.IPv4(192, 0, 2, 2)
	source6      = net.ParseIP("2001:db8::1")
	destination6 = net.ParseIP("2001:db8::2")
)

const (
	typeIPv4  = layers.EthernetTypeIPv4
	typeIPv6  = layers.EthernetTypeIPv6
	typeARP   = layers.EthernetTypeARP
	type8021Q = layers.EthernetTypeDot1Q
	type1AD   = layers.EthernetTypeQinQ
	type9100  = layers.EthernetType(0x9100)
	typeMPLS  = layers.EthernetTypeMPLSUnicast
)

// The IPv6 extension headers, and the protocols that look like one but are not walked through.
const (
	hopByHop = 0
	routing  = 43
	fragment = 44
	ah       = 51
	options  = 60

	tcp      = 6
	udp      = 17
	esp      = 50
	noNext   = 59
	mobility = 135
	hip      = 139
	shim6    = 140
)

// build puts a frame together from layers, outermost first. The first parsed of them are the headers that decide
// the class. Lengths and checksums are filled in.
func build(name string, class traffic.Class, parsed int, stack ...gopacket.SerializableLayer) Frame {
	buffer := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	sizes := make([]int, len(stack))
	for i := len(stack) - 1; i >= 0; i-- {
		before := len(buffer.Bytes())
		if err := stack[i].SerializeTo(buffer, opts); err != nil {
			panic(fmt.Sprintf("frame %q, layer %d: %v", name, i, err))
		}
		sizes[i] = len(buffer.Bytes()) - before
		buffer.PushLayer(stack[i].LayerType())
	}
	sizes[0] = 14 // the Ethernet layer also pads the frame to 60 bytes
	var cuts []int
	end := 0
	for _, size := range sizes[:parsed] {
		end += size
		cuts = append(cuts, end)
	}
	return Frame{Name: name, Class: class, Data: slices.Clone(buffer.Bytes()), Cuts: cuts}
}

// patched returns the frame with the byte at offset replaced, as what it then is.
func patched(f Frame, name string, class traffic.Class, offset int, value byte) Frame {
	f.Name, f.Class = name, class
	f.Data = slices.Clone(f.Data)
	f.Data[offset] = value
	return f
}

func ethernet(next layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: source, DstMAC: destination, EthernetType: next}
}

// tag is what follows the ethertype of a VLAN tag.
func tag(next layers.EthernetType) *layers.Dot1Q {
	return &layers.Dot1Q{VLANIdentifier: 100, Priority: 3, Type: next}
}

// tags returns an Ethernet header with a chain of tags of these types, the last of which holds next.
func tags(next layers.EthernetType, tpids ...layers.EthernetType) []gopacket.SerializableLayer {
	types := append(slices.Clone(tpids), next)
	stack := []gopacket.SerializableLayer{ethernet(types[0])}
	for _, t := range types[1:] {
		stack = append(stack, tag(t))
	}
	return stack
}

func ip4(protocol uint8) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocol(protocol), SrcIP: source4, DstIP: destination4}
}

func ip6(next uint8) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocol(next), SrcIP: source6, DstIP: destination6}
}

func arp(operation uint16) *layers.ARP {
	return &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: typeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: operation,
		SourceHwAddress: source, SourceProtAddress: source4.To4(), DstHwAddress: destination, DstProtAddress: destination4.To4(),
	}
}

func udpTo(port uint16, over gopacket.NetworkLayer) *layers.UDP {
	l := &layers.UDP{SrcPort: 40000, DstPort: layers.UDPPort(port)}
	must(l.SetNetworkLayerForChecksum(over))
	return l
}

func tcpTo(port uint16, over gopacket.NetworkLayer) *layers.TCP {
	l := &layers.TCP{SrcPort: 40000, DstPort: layers.TCPPort(port), SYN: true, Window: 65535}
	must(l.SetNetworkLayerForChecksum(over))
	return l
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// payload is n bytes that look like no header.
func payload(n int) gopacket.Payload {
	p := make(gopacket.Payload, n)
	for i := range p {
		p[i] = 0xA5
	}
	return p
}

// extension is an IPv6 extension header of the given kind: its length field, and the bytes that it announces.
func extension(kind, next, length uint8) gopacket.Payload {
	size := 8 + 8*int(length)
	switch kind {
	case ah:
		size = 8 + 4*int(length)
	case fragment:
		size = 8
	}
	header := make(gopacket.Payload, size)
	header[0], header[1] = next, length
	return header
}

// fragmentAt is a fragment header with an offset in units of 8 bytes.
func fragmentAt(next uint8, offset uint16, more bool) gopacket.Payload {
	header := extension(fragment, next, 0)
	flags := offset << 3
	if more {
		flags |= 1
	}
	binary.BigEndian.PutUint16(header[2:], flags)
	binary.BigEndian.PutUint32(header[4:], 0x51525354)
	return header
}

// chain is an IPv6 frame with these extension headers in turn, then TCP.
func chain(name string, class traffic.Class, kinds ...uint8) Frame {
	next := append(slices.Clone(kinds), tcp)
	ip := ip6(next[0])
	stack := []gopacket.SerializableLayer{ethernet(typeIPv6), ip}
	for i, kind := range kinds {
		length := uint8(i % 3)
		if kind == ah {
			length = 4 // 24 bytes, the usual with a 96-bit digest
		}
		stack = append(stack, extension(kind, next[i+1], length))
	}
	stack = append(stack, tcpTo(443, ip), payload(20))
	return build(name, class, 2+len(kinds), stack...)
}
