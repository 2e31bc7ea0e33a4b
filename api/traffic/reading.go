// SPDX-License-Identifier: Apache-2.0

package traffic

// MapID identifies a BPF map permanently: the kernel does not reuse a map ID within one boot, and boot IDs are random. Names
// and indexes of interfaces are reused, so they do not identify a map. The zero value is no map.
type MapID struct {
	Boot string // the kernel's random boot ID, /proc/sys/kernel/random/boot_id
	ID   uint32 // the kernel's ID of the BPF map
}

// Reading holds the totals of one map at one instant, counted since the map was created.
type Reading struct {
	Map    MapID
	Index  int // the index of the interface on which the map counts, 0 if it no longer counts
	Totals Totals
}
