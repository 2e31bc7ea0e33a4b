// SPDX-License-Identifier: Apache-2.0

// Package plan decides which interfaces are to be counted, and what has to be attached and detached for that. It does no I/O and
// imports only the standard library.
package plan

// Mode is how an XDP program is attached.
type Mode string

// The modes. Auto can only be asked for; a program is attached in one of the others.
const (
	Auto    Mode = "Auto"    // the mode that costs less on the interface (Costs), if it is possible, otherwise the other
	Native  Mode = "Native"  // in the driver, before the kernel allocates an sk_buff
	Generic Mode = "Generic" // in the kernel's receive path, for any interface
)

// Interface is a network interface of the node as rtnetlink lists it.
type Interface struct {
	Name     string   // at most 15 bytes, any but '/', ':' and white space
	AltNames []string // other names of it, at most 127 bytes each
	Index    int      // unique at one time within the network namespace, but reused
	Kind     string   // rtnetlink's kind of a virtual interface ("veth", "bond", "vlan"); "" for a physical one
	Driver   string   // the driver by ethtool; "" if there is none
	MTU      int      // bytes
	Primary  bool     // a default route (IPv4 or IPv6) uses it
	Hook     Hook     // the XDP program on it

	Master     int  // the index of the bond, team, bridge or other interface of which it is a member or port; 0 if there is none
	Parent     int  // the index of the interface below, for example of a VLAN; 0 if there is none in this network namespace
	PeerAway   bool // it is one end of a pair (veth, netkit), and the other end is in another network namespace
	NoEthernet bool // its packets have no Ethernet header, as on WireGuard and tun
}

// Hook is the XDP program that is attached to an interface, ours or another one. The zero value means none.
type Hook struct {
	Program uint32 // the kernel's program ID, 0 if nothing is attached
	Mode    Mode   // Native or Generic
}

// Attachment is the counting program on one interface. A wanted attachment has Index, Name, Mode, First and ViaDispatcher. A
// present one, which was read from the pins, has all fields except Name, Mode and First.
type Attachment struct {
	Index         int    // the interface; in a present attachment 0 if the interface or the link is gone and only the counts are left
	Name          string // the interface's name, for messages
	Mode          Mode   // the mode asked for
	First         Mode   // in a wanted attachment with Auto: the mode to try first. Only Generic is different from ""
	ViaDispatcher bool   // a dispatcher calls, or is to call, the program; otherwise a link attaches it
	Program       uint32 // the kernel's ID of the attached program, which is the dispatcher if ViaDispatcher; 0 if none
	Map           uint32 // the kernel's ID of the map that holds the counts, 0 if none
	Pin           string // the folder of the pins, by which Detach finds the attachment

	// Outdated is set if the attached program is of another version than the one that Attach loads, or was chosen for another
	// MTU. Attach replaces it over the same map.
	Outdated bool

	// CountsAggregates is set if the attached program counts an aggregate of several frames as one packet, because the kernel
	// loads no program that can tell the frames. It is not known of a program that a dispatcher calls, and never set for it.
	CountsAggregates bool

	// Refused is the error of native mode, if Auto was asked for and the attachment is generic. It wraps one of the errors of
	// this package. It is nil if native mode was not tried or is attached.
	Refused error
	// Improved is set if the cause of Refused may be gone: for example the MTU is smaller, or there are more queues.
	Improved bool

	// SwitchedOff has the features that the attach has switched off and that were off when they were last read: after the
	// attach, and when the agent started. It is nil if that is not known, as for attachments of earlier versions.
	SwitchedOff []SwitchedOff
}

// SwitchedOff has the features that an attach has switched off on one interface: on its own, on the peer of a veth, or on an
// interface below. The process that detaches restores them where the kernel does not.
type SwitchedOff struct {
	Interface string   // the name
	Features  []string // as "ethtool -k" lists them, sorted
}
