// SPDX-License-Identifier: Apache-2.0

package classify

import "encoding/binary"

// SentByNode reports whether what generic XDP sees is no Ethernet frame, but the copy of a packet that the node itself sends
// to a group or as a broadcast. The rule is that of docs/datapath.md. Its facts are from RFC 791 (IPv4), RFC 1071 (the
// checksum), RFC 2113 (Router Alert), RFC 8200 (IPv6), RFC 4291 (addresses of groups) and IEEE 802.3 (addresses, types).
func SentByNode(data []byte) bool {
	if len(data) < 20 || acceptable(data) {
		return false
	}
	switch data[0] / 16 {
	case 4:
		return ownIPv4(data)
	case 6:
		return ownIPv6(data)
	}
	return false
}

// isGroup reports whether an Ethernet address with this first octet is that of a group (802.3 clause 3.2.3: the bit that is
// sent first).
func isGroup(octet byte) bool { return octet%2 == 1 }

func ownIPv4(p []byte) bool {
	size := int(p[0]%16) * 4
	if size < 20 || size > len(p) || int(binary.BigEndian.Uint16(p[2:])) != len(p) {
		return false
	}
	// "The checksum field is the 16 bit one's complement of the one's complement sum of all 16 bit words in the header."
	total := uint32(0)
	for i := 0; i < size; i += 2 {
		total += uint32(p[i])<<8 | uint32(p[i+1])
	}
	if total == 0 || total%0xFFFF != 0 {
		return false
	}
	// As the destination of a frame, the first octet is that of a group that nobody uses. Where it is not that of a group
	// there are options, and Router Alert (type 148, length 4) has to be the first.
	return isGroup(p[0]) || p[20] == 148 && p[21] == 4
}

func ownIPv6(p []byte) bool {
	const header = 40
	if len(p) < header || int(binary.BigEndian.Uint16(p[4:]))+header != len(p) {
		return false
	}
	toGroup := p[24] == 0xFF // RFC 4291 section 2.7
	// The next header is where a frame has the first octet of its source, which is never a group. A frame with type 0 does
	// not exist: as a length it would have no LLC header.
	return toGroup && (isGroup(p[6]) || p[12] == 0 && p[13] == 0)
}

// acceptable reports whether the data starts like an Ethernet frame that a node would accept as IPv4, IPv6 or ARP, or with
// a tag before one of these.
func acceptable(frame []byte) bool {
	known := func(t uint16) bool { return t == 0x0800 || t == 0x86DD || t == 0x0806 }
	isTag := func(t uint16) bool { return t == typeCustomerTag || t == typeServiceTag || t == typeOldTag }
	kind, rest := binary.BigEndian.Uint16(frame[12:]), frame[14:]
	switch kind {
	case 0x0800:
		return rest[0]/16 == 4 && int(binary.BigEndian.Uint16(rest[2:])) <= len(rest)
	case 0x86DD:
		return rest[0]/16 == 6 && int(binary.BigEndian.Uint16(rest[4:]))+40 <= len(rest)
	case 0x0806: // hardware Ethernet, protocol IPv4
		return binary.BigEndian.Uint32(rest) == 0x0001_0800
	}
	inner := binary.BigEndian.Uint16(rest[2:])
	return isTag(kind) && (known(inner) || isTag(inner))
}
