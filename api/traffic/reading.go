package traffic

// MapID identifies a counting map for ever: map IDs are never used twice within one boot, boot IDs never at all.
// Names and indexes of interfaces are reused, so they identify nothing. The zero value is no map.
type MapID struct {
	Boot string // the kernel's random boot ID, /proc/sys/kernel/random/boot_id
	ID   uint32 // the kernel's ID of the BPF map
}

// Reading is what one map held at one instant: the totals since it was made.
type Reading struct {
	Map    MapID
	Index  int // the interface index that the map is attached to now, 0 if to none any more
	Totals Totals
}
