// SPDX-License-Identifier: Apache-2.0

package plan

import "time"

// Program is the program that runs for an attachment.
type Program struct {
	Map           uint32 // the kernel's ID of the map that holds the counts, as in Attachment
	ID            uint32 // the kernel's ID of the attached program, which is the dispatcher if ViaDispatcher; 0 if none
	ViaDispatcher bool   // a dispatcher calls the program
	Tag           string // the kernel's tag of the instructions that count; "" if none is attached, or one that is not pinned

	// The number of runs and their total time, while the kernel collected statistics (kernel.bpf_stats_enabled) since the program
	// was loaded. Both are zero if it collected none, and if ViaDispatcher: the kernel collects none for a program that another
	// one calls.
	Runs    uint64
	RunTime time.Duration
}
