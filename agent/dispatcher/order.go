// SPDX-License-Identifier: Apache-2.0

package dispatcher

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// flagFrags is set in the flags of a member that accepts frames in several buffers.
const flagFrags = unix.BPF_F_XDP_HAS_FRAGS

// Settings of our program. It is called before programs that may drop a frame, because dropped frames are counted too, and the
// dispatcher always calls the next program after it.
const (
	priority = 1      // the default of libxdp is 50; 0 is free for programs that have to run before ours
	actions  = 1 << 2 // XDP_PASS
)

// member is a program that a dispatcher calls, or that is to be added to it.
type member struct {
	name     string
	priority uint32 // the least is called first
	actions  uint32 // the results after which the next program is called, one bit for each
	flags    uint32
	id       uint32        // 0 if it is not loaded yet
	tag      string        // the kernel's
	loaded   time.Duration // time since boot
	ours     bool

	program *ebpf.Program // nil if it is not loaded yet
}

// with returns the members and one more, in the order of the calls.
func with(members []member, one member) []member {
	members = append(slices.Clone(members), one)
	slices.SortStableFunc(members, order)
	return members
}

// without returns the members that are not ours, in the same order.
func without(members []member) []member {
	return slices.DeleteFunc(slices.Clone(members), func(m member) bool { return m.ours })
}

// order compares members as libxdp does (cmp_xdp_programs).
func order(a, b member) int {
	loaded := func(m member) int {
		if m.id != 0 {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(a.priority, b.priority),
		strings.Compare(a.name, b.name),
		cmp.Compare(loaded(a), loaded(b)),
		strings.Compare(a.tag, b.tag),
		cmp.Compare(a.loaded, b.loaded),
	)
}
