// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// maxUncounted is how many interfaces that are not counted a report lists. A node with thousands of VLANs, all skipped, would
// otherwise write a megabyte per report. status.omittedInterfaces has the numbers of the others.
const maxUncounted = 100

// omit returns the interfaces that a report lists, in their order, and how many are left out. Interfaces with a map are part of
// the ledger and always listed. Of the others, the first maxUncounted are listed: those that failed before those that are about
// to be attached, and these before those that are skipped. In addition each counter has at least one example of each kind.
func omit(interfaces []v1alpha1.NodeInterface) (listed []v1alpha1.NodeInterface, omitted []v1alpha1.OmittedInterfaces) {
	type example struct {
		uid  types.UID
		kind entryKind
	}
	examples := map[example]bool{}
	left := make([]bool, len(interfaces))
	room := maxUncounted
	for _, kind := range []entryKind{kindFailed, kindPending, kindSkipped} {
		for at, i := range interfaces {
			if kindOf(i) != kind {
				continue
			}
			first := false
			for _, uid := range i.Counters {
				first = first || !examples[example{uid, kind}]
				examples[example{uid, kind}] = true
			}
			left[at] = room <= 0 && !first
			room--
		}
	}
	numbers := map[types.UID]v1alpha1.OmittedInterfaces{}
	for at, i := range interfaces {
		if !left[at] {
			listed = append(listed, i)
			continue
		}
		for _, uid := range i.Counters {
			n := numbers[uid]
			n.UID = uid
			switch kindOf(i) {
			case kindFailed:
				n.Failed++
			case kindPending:
				n.Pending++
			case kindSkipped:
				n.Skipped++
			case kindCounted: // always listed
			}
			numbers[uid] = n
		}
	}
	for _, n := range numbers {
		omitted = append(omitted, n)
	}
	slices.SortFunc(omitted, func(a, b v1alpha1.OmittedInterfaces) int { return cmp.Compare(a.UID, b.UID) })
	return listed, omitted
}

// entryKind says whether an interface of a report is counted, and if not, why.
type entryKind int

const (
	kindCounted entryKind = iota // it has a map
	kindFailed
	kindPending // about to be attached
	kindSkipped
)

func kindOf(i v1alpha1.NodeInterface) entryKind {
	switch {
	case i.State == v1alpha1.InterfaceSkipped:
		return kindSkipped
	case i.State != v1alpha1.InterfaceFailed:
		return kindCounted
	case i.Reason == v1alpha1.ReasonPending:
		return kindPending
	default:
		return kindFailed
	}
}
