// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/internal/format"
)

// switchedOff returns a tree of the features that are switched off where the counter counts: one branch for all interfaces with
// the same features. It returns nil if there are none. states are sorted.
func switchedOff(c *v1alpha1.XDPCounter, states []v1alpha1.XDPNodeState) *branch {
	where := map[string][]string{} // by the features
	for i := range states {
		state := &states[i]
		if entry := state.Spec.Entry(c.UID); entry == nil || entry.Inactive {
			continue
		}
		for _, i := range state.Status.Interfaces {
			if i.State != v1alpha1.InterfaceAttached || !slices.Contains(i.Counters, c.UID) {
				continue
			}
			for _, off := range i.SwitchedOff {
				features := strings.Join(off.Features, ", ")
				name := state.Name + "/" + off.Interface
				if off.Interface == format.Printable(i.Name) {
					name += " (" + string(i.Mode) + ")"
				} else {
					name += " (" + string(i.Mode) + " on " + i.Name + ")"
				}
				where[features] = append(where[features], name)
			}
		}
	}
	if len(where) == 0 {
		return nil
	}
	tree := branch{text: "Switched off while programs are attached"}
	for _, features := range slices.Sorted(maps.Keys(where)) {
		tree.branches = append(tree.branches, branch{text: features, details: []string{"at " + format.FirstFew(where[features])}})
	}
	return &tree
}
