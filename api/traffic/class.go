// SPDX-License-Identifier: Apache-2.0

// Package traffic defines the classes of frames, the counts of each class and the arithmetic on them. It does not depend on
// the kernel or on Kubernetes and imports the standard library only.
package traffic

import "fmt"

// Family is the protocol family of a frame, determined by its innermost ethertype.
type Family uint8

// The families in display order. Every frame belongs to exactly one of them.
const (
	IPv4      Family = iota // ethertype 0x0800 with a valid header
	IPv6                    // ethertype 0x86DD with a valid header and at most 8 extension headers
	ARP                     // ethertype 0x0806
	Other                   // any other ethertype, including 802.3 length fields
	Malformed               // shorter than the header that its ethertype requires, or with an invalid header
	numFamilies
)

var familyNames = [numFamilies]string{"IPv4", "IPv6", "ARP", "Other", "Malformed"}

// String returns the name as used in status, metrics and tables, for example "IPv4".
func (f Family) String() string {
	if f >= numFamilies {
		return fmt.Sprintf("Family(%d)", uint8(f))
	}
	return familyNames[f]
}

// Families returns all families in display order.
func Families() []Family {
	return []Family{IPv4, IPv6, ARP, Other, Malformed}
}

// Class is a class of frames with its own counts: a protocol within a family. The value is the slot in the BPF map
// (bpf/counter.h, enum slot): 0-255 for IPv4 by protocol number, 256-511 for IPv6 by upper-layer protocol number, then ARP,
// Other and Malformed.
type Class uint16

// The classes without a protocol number, and the number of all classes.
const (
	ClassARP       Class = 512
	ClassOther     Class = 513
	ClassMalformed Class = 514
	NumClasses           = 515
)

// IP returns the class of an IP protocol number in IPv4 or IPv6. For the other families, which have no protocol numbers, it
// returns the class of the family.
func IP(f Family, number uint8) Class {
	switch f {
	case IPv4:
		return Class(number)
	case IPv6:
		return 256 + Class(number)
	case ARP:
		return ClassARP
	case Other:
		return ClassOther
	default:
		return ClassMalformed
	}
}

// Family returns the family of the class.
func (c Class) Family() Family {
	switch {
	case c < 256:
		return IPv4
	case c < 512:
		return IPv6
	case c == ClassARP:
		return ARP
	case c == ClassOther:
		return Other
	default:
		return Malformed
	}
}

// Number returns the IP protocol number. ok is false for ARP, Other and Malformed.
func (c Class) Number() (number uint8, ok bool) {
	if c >= 512 {
		return 0, false
	}
	return uint8(c), true
}

// Protocol returns the name of the protocol: the IANA keyword, for example "TCP" (see ProtocolName), or the name of the
// family for ARP, Other and Malformed.
func (c Class) Protocol() string {
	if n, ok := c.Number(); ok {
		return ProtocolName(n)
	}
	return c.Family().String()
}

// String returns family and protocol, for example "IPv6/TCP", or only the family for ARP, Other and Malformed.
func (c Class) String() string {
	if c < 512 {
		return c.Family().String() + "/" + c.Protocol()
	}
	return c.Family().String()
}

// ParseClass is the inverse of Class.String. ok is false if no class has the name.
func ParseClass(name string) (c Class, ok bool) {
	c, ok = classes[name]
	return c, ok
}

// classes maps names to classes.
var classes = func() map[string]Class {
	byName := make(map[string]Class, NumClasses)
	for c := range Class(NumClasses) {
		byName[c.String()] = c
	}
	return byName
}()
