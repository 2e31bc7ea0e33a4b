package v1alpha1

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// Entry returns what the notice tells of the counter with the UID, nil if nothing.
func (n *XDPNotice) Entry(uid types.UID) *NodeCounter { return entryOf(n.Spec.Counters, uid) }

// Entry returns what the spec tells of the counter with the UID, nil if nothing.
func (s *XDPNodeStateSpec) Entry(uid types.UID) *NodeCounter { return entryOf(s.Counters, uid) }

func entryOf(list []NodeCounter, uid types.UID) *NodeCounter {
	if i := slices.IndexFunc(list, func(c NodeCounter) bool { return c.UID == uid }); i >= 0 {
		return &list[i]
	}
	return nil
}

// With returns the spec as it is after the notice, and whether that tells more than the spec alone. A notice that the spec takes
// in tells no more, nor does an older one, which an agent may still see then. A counter that the spec does not have yet is
// younger than those that it has.
func (s XDPNodeStateSpec) With(notice *XDPNotice) (told XDPNodeStateSpec, ahead bool) {
	if notice.Generation <= s.Notice {
		return s, false
	}
	told = s
	told.Counters = slices.Clone(s.Counters)
	for _, news := range notice.Spec.Counters {
		switch known := told.Entry(news.UID); {
		case known == nil:
			told.Counters, ahead = append(told.Counters, news), true
		case known.Generation < news.Generation:
			*known, ahead = news, true
		}
	}
	return told, ahead
}
