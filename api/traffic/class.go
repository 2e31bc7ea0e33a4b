// Package traffic is what is counted: the classes of frames, the totals of each and the arithmetic on them.
// It knows neither the kernel nor Kubernetes and imports the standard library only.
package traffic

import "fmt"

// Family is the coarse class of a frame, told from its innermost ethertype.
type Family uint8

// The families, in the order in which they are shown. A frame is in exactly one of them.
const (
	IPv4      Family = iota // ethertype 0x0800 with a sound header
	IPv6                    // ethertype 0x86DD with a sound header and at most 8 extension headers
	ARP                     // ethertype 0x0806
	Other                   // any other ethertype, 802.3 length fields included
	Malformed               // too short for the header that its type announces, or a header that contradicts it
	numFamilies
)

var familyNames = [numFamilies]string{"IPv4", "IPv6", "ARP", "Other", "Malformed"}

// String returns the name that status, metrics and tables use, for example "IPv4".
func (f Family) String() string {
	if f >= numFamilies {
		return fmt.Sprintf("Family(%d)", uint8(f))
	}
	return familyNames[f]
}

// Families returns every family in the order in which they are shown.
func Families() []Family {
	return []Family{IPv4, IPv6, ARP, Other, Malformed}
}

// Class is one class of frames that is counted apart: a protocol within a family. Its value is the slot in the
// BPF table (bpf/counter.h, enum slot): 0-255 IPv4 by protocol number, 256-511 IPv6 by upper-layer protocol
// number, then ARP, Other and Malformed.
type Class uint16

// The classes that are not a protocol number within IPv4 or IPv6, and their number.
const (
	ClassARP       Class = 512
	ClassOther     Class = 513
	ClassMalformed Class = 514
	NumClasses           = 515
)

// IP returns the class of an IP protocol number within IPv4 or IPv6, and of the whole family for the others,
// which have no protocol number.
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

// Family returns the family that the class belongs to.
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

// Number returns the IP protocol number. ok is false for ARP, Other and Malformed, which have none.
func (c Class) Number() (number uint8, ok bool) {
	if c >= 512 {
		return 0, false
	}
	return uint8(c), true
}

// Protocol returns the name of the protocol: the IANA keyword such as "TCP" (see ProtocolName), or the family's
// name for ARP, Other and Malformed.
func (c Class) Protocol() string {
	if n, ok := c.Number(); ok {
		return ProtocolName(n)
	}
	return c.Family().String()
}

// String returns family and protocol, for example "IPv6/TCP", or the family alone where it has no protocols.
func (c Class) String() string {
	if c < 512 {
		return c.Family().String() + "/" + c.Protocol()
	}
	return c.Family().String()
}

// ParseClass is the inverse of Class.String. ok is false for any other text.
func ParseClass(name string) (c Class, ok bool) {
	c, ok = classes[name]
	return c, ok
}

// classes holds every class by its name.
var classes = func() map[string]Class {
	byName := make(map[string]Class, NumClasses)
	for c := range Class(NumClasses) {
		byName[c.String()] = c
	}
	return byName
}()
