package plan

import "time"

// Program is what runs for an attachment.
type Program struct {
	Map uint32 // the kernel's ID of the map that holds the counts, as in Attachment
	ID  uint32 // the kernel's ID of the attached program, 0 if none
	Tag string // the kernel's tag of its instructions; "" if none is attached, or one that is not pinned

	// How often it ran and how long altogether, since it was loaded and while the kernel kept statistics
	// (kernel.bpf_stats_enabled). Zero if it never did.
	Runs    uint64
	RunTime time.Duration
}
