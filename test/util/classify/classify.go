// SPDX-License-Identifier: Apache-2.0

// Package classify determines the class of a frame independently, so that the counting program can be compared with
// something. It is written from the standards and from docs/architecture.md, not from the program: what the two
// share are the definitions and no line of code.
//
// The standards are IEEE 802.3 (Ethernet), IEEE 802.1Q (customer and service tags), RFC 826 (ARP), RFC 791 (IPv4),
// RFC 8200 (IPv6 and its extension headers) and RFC 4302 (the Authentication Header).
package classify

import (
	"encoding/binary"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// Limits of our own, where the standards have none: how many tags and how many extension headers are looked through.
const (
	MaxTags       = 4
	MaxExtensions = 8
)

// Defect is why a frame is malformed.
type Defect string

// The defects. Sound is that of every class but traffic.ClassMalformed.
const (
	Sound             Defect = ""
	Truncated         Defect = "the frame ends inside a header that its type announces"
	WrongVersion      Defect = "the version of the IP header is not that of the ethertype"
	ShortHeader       Defect = "the IPv4 header says that it is shorter than 20 bytes"
	TooManyExtensions Defect = "more than 8 extension headers"
)

// Dissection is what there is to know of a frame's class.
type Dissection struct {
	Class      traffic.Class
	Defect     Defect
	Tags       int    // looked through, MaxTags at most
	Type       uint16 // behind the tags that were looked through
	Network    []byte // what follows Type, to the end of the frame; nil if the frame ends before
	Extensions []byte // the kinds of the IPv6 extension headers, in their order, MaxExtensions at most
}

// Frame returns the class that a frame counts as, given from its Ethernet header on and without FCS.
func Frame(frame []byte) traffic.Class {
	return Dissect(frame).Class
}

// Dissect returns the class of a frame and how it comes about.
func Dissect(frame []byte) Dissection {
	d := &dissector{rest: frame}
	d.Class = d.link()
	if d.Defect != Sound {
		d.Class = traffic.ClassMalformed
	}
	return d.Dissection
}

// dissector reads a frame from the front to the back.
type dissector struct {
	Dissection
	rest []byte // not yet read
}

// read takes the next n bytes. If the frame has fewer it returns nil and notes the defect.
func (d *dissector) read(n int) []byte {
	if len(d.rest) < n {
		d.Defect, d.rest = Truncated, nil
		return nil
	}
	taken := d.rest[:n:n]
	d.rest = d.rest[n:]
	return taken
}

// malformed notes the defect. What it returns does not matter.
func (d *dissector) malformed(defect Defect) traffic.Class {
	d.Defect = defect
	return traffic.ClassMalformed
}

// The ethertypes of tags: 802.1Q-2018 table 9-1, and 0x9100, which was in use for the outer of two before 802.1ad.
const (
	typeCustomerTag = 0x8100
	typeServiceTag  = 0x88A8
	typeOldTag      = 0x9100
)

// link reads the Ethernet header: two addresses of 6 bytes, then the tags of 802.1Q clause 9 (2 bytes TPID, 2 bytes
// control information), then length or type (802.3 clause 3.2.6). A TPID stands where the type would, so a tag is read
// as what follows the TPID: control information and the next type.
func (d *dissector) link() traffic.Class {
	const addresses, length = 12, 2
	header := d.read(addresses + length)
	for header != nil {
		d.Type = binary.BigEndian.Uint16(header[len(header)-length:])
		if d.Type != typeCustomerTag && d.Type != typeServiceTag && d.Type != typeOldTag || d.Tags == MaxTags {
			d.Network = d.rest
			return d.network()
		}
		d.Tags++
		header = d.read(4)
	}
	return traffic.ClassMalformed
}

// network reads what the type announces.
func (d *dissector) network() traffic.Class {
	switch d.Type {
	case 0x0800: // RFC 894
		return d.ipv4()
	case 0x0806: // RFC 826
		// Hardware and protocol space, their lengths, opcode. How long the addresses are is up to these.
		d.read(2 + 2 + 1 + 1 + 2)
		return traffic.ClassARP
	case 0x86DD: // RFC 2464
		return d.ipv6()
	default:
		return traffic.ClassOther
	}
}

// ipv4 reads the header of RFC 791 section 3.1: version and IHL are the halves of octet 0, the protocol is octet 9, and
// IHL counts words of 4 octets, "the minimum value for a correct header is 5". Neither the total length nor the
// checksum is judged, and a fragment has the protocol of its datagram.
func (d *dissector) ipv4() traffic.Class {
	const word, least = 4, 5
	header := d.read(least * word)
	if header == nil {
		return traffic.ClassMalformed
	}
	version, ihl := header[0]/16, int(header[0]%16)
	if version != 4 {
		return d.malformed(WrongVersion)
	}
	if ihl < least {
		return d.malformed(ShortHeader)
	}
	d.read((ihl - least) * word)
	return traffic.IP(traffic.IPv4, header[9])
}

// The extension headers that are looked through. RFC 8200 section 4 has two more: ESP, behind which all is encrypted,
// and those that RFC 7045 adds to the registry (Mobility, HIP, Shim6 and the experiments), which here are protocols
// of their own.
const (
	hopByHop       = 0  // RFC 8200 section 4.3
	routing        = 43 // section 4.4
	fragment       = 44 // section 4.5
	authentication = 51 // RFC 4302 section 2
	destination    = 60 // RFC 8200 section 4.6
)

// ipv6 reads the header of RFC 8200 section 3 (version the first half of octet 0, next header octet 6, 40 octets in
// all), then one extension header after the other.
func (d *dissector) ipv6() traffic.Class {
	header := d.read(40)
	if header == nil {
		return traffic.ClassMalformed
	}
	if header[0]/16 != 6 {
		return d.malformed(WrongVersion)
	}
	next := header[6]
	for {
		extension, last := d.extension(next)
		if d.Defect != Sound {
			return traffic.ClassMalformed
		}
		if extension == nil {
			return traffic.IP(traffic.IPv6, next)
		}
		next = extension[0]
		if last {
			return traffic.IP(traffic.IPv6, next)
		}
	}
}

// extension reads one extension header whole. It returns nil if a header of that number is none. Last says that what
// the header names is not there to be looked at: a fragment that is not the first begins somewhere in the middle.
func (d *dissector) extension(number byte) (header []byte, last bool) {
	var size func(length int) int
	switch number {
	case hopByHop, routing, destination:
		// "Length of the header in 8-octet units, not including the first 8 octets."
		size = func(length int) int { return 8 * (length + 1) }
	case authentication:
		// "The length of AH in 32-bit words (4-byte units), minus 2."
		size = func(length int) int { return 4 * (length + 2) }
	case fragment:
		// Octet 1 is reserved, "ignored on reception".
		size = func(int) int { return 8 }
	default:
		return nil, false
	}
	if len(d.Extensions) == MaxExtensions {
		d.malformed(TooManyExtensions)
		return nil, false
	}
	first := d.read(8) // of every kind the shortest
	if first == nil {
		return nil, false
	}
	d.read(size(int(first[1])) - len(first))
	d.Extensions = append(d.Extensions, number)
	// The offset is the upper 13 of the 16 bits.
	offset := binary.BigEndian.Uint16(first[2:]) / 8
	return first, number == fragment && offset != 0
}
