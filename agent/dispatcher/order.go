package dispatcher

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// flagFrags is in a member's flags if it can take frames of many buffers.
const flagFrags = unix.BPF_F_XDP_HAS_FRAGS

// What a program says of itself if it is ours: it is called before those that may drop a frame, which else would not be
// counted, and always goes on.
const (
	priority = 1      // libxdp's default is 50; 0 is left to those who know that they want to be before us
	actions  = 1 << 2 // XDP_PASS
)

// member is a program that a dispatcher calls, or shall call.
type member struct {
	name     string
	priority uint32 // the least is called first
	actions  uint32 // after which results the next one is called, a bit for each
	flags    uint32
	id       uint32        // 0 of one that is not loaded yet
	tag      string        // the kernel's
	loaded   time.Duration // since the machine was started
	ours     bool

	program *ebpf.Program // nil of one that is not loaded yet
}

// with returns the members and one more, in the order in which they are called.
func with(members []member, one member) []member {
	members = append(slices.Clone(members), one)
	slices.SortStableFunc(members, order)
	return members
}

// without returns those that are not ours, in their order.
func without(members []member) []member {
	return slices.DeleteFunc(slices.Clone(members), func(m member) bool { return m.ours })
}

// order is that of libxdp (cmp_xdp_programs).
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
