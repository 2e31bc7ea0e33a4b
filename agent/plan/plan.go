// Package plan decides, from what is asked and what there is, which interfaces shall be counted and what has
// to change for it. It is pure: no kernel, no Kubernetes, the standard library only.
package plan

// Mode is how an XDP program is attached.
type Mode string

// The modes. Auto is only ever asked for, never attained.
const (
	Auto    Mode = "Auto"    // native where the driver can, else generic
	Native  Mode = "Native"  // in the driver, before the kernel makes a packet of the frame
	Generic Mode = "Generic" // in the kernel's receive path, any interface
)

// Interface is a network interface of the node as rtnetlink lists it.
type Interface struct {
	Name     string   // at most 15 bytes, any but '/', ':' and white space
	AltNames []string // other names of it, at most 127 bytes each
	Index    int      // unique at one time within the network namespace, but reused
	Kind     string   // rtnetlink's kind of a virtual interface ("veth", "bond", "vlan"); "" for a physical one
	Driver   string   // the driver by ethtool; "" if there is none
	MTU      int      // bytes
	Primary  bool     // a default route (IPv4 or IPv6) leaves through it
	Hook     Hook     // the XDP program on it

	Master     int  // the index of the bond, team, bridge or other interface that it is a member or port of; 0 if there is none
	Parent     int  // the index of the interface that it is made upon, as a VLAN is; 0 if there is none here
	PeerAway   bool // the other end of the pair that it is of (veth, netkit) is in another network namespace
	NoEthernet bool // its packets have no Ethernet header, as on WireGuard and tun
}

// Hook is the XDP program that is attached to an interface, ours or another's. The zero value is none.
type Hook struct {
	Program uint32 // the kernel's program ID, 0 if nothing is attached
	Mode    Mode   // Native or Generic
}

// Attachment is the counting program on one interface. As a wish it has Index, Name, Mode and ViaDispatcher; as a
// fact, from the pins, it has Index, ViaDispatcher, Program and Map.
type Attachment struct {
	Index         int    // the interface; in a fact 0 once the interface or the link is gone, when the counts can still be read
	Name          string // the interface's name, for messages
	Mode          Mode   // the mode asked for
	ViaDispatcher bool   // the hook is, or shall be, shared by a dispatcher, instead of held by a link
	Program       uint32 // the kernel's ID of the attached program, which is the dispatcher if ViaDispatcher; 0 if none
	Map           uint32 // the kernel's ID of the map that holds the counts, 0 if none
	Pin           string // the folder of the pins, which names the attachment for Detach

	// Outdated says that the attached program is another version than Attach would load, or chosen for another MTU.
	// Attach replaces it over the same map.
	Outdated bool

	// Refused is why an attachment for which Auto was asked is generic: what the driver said to native mode. It wraps
	// one of the errors of this package; nil if native mode was not tried or was had.
	Refused error
	// Improved says that what Refused told of may be cured: the MTU is smaller, say, or there are more queues.
	Improved bool
}
