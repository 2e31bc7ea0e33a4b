package plan

import "time"

// Program is what runs for an attachment.
type Program struct {
	Map           uint32 // the kernel's ID of the map that holds the counts, as in Attachment
	ID            uint32 // the kernel's ID of the attached program, which is the dispatcher if ViaDispatcher; 0 if none
	ViaDispatcher bool   // the hook is shared by a dispatcher
	Tag           string // the kernel's tag of the instructions that count; "" if none is attached, or one that is not pinned

	// How often it ran and how long altogether, since it was loaded and while the kernel kept statistics
	// (kernel.bpf_stats_enabled). Zero if it never did, and if ViaDispatcher: the kernel keeps none of a program that another
	// one calls.
	Runs    uint64
	RunTime time.Duration
}
