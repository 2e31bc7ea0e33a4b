// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"slices"
)

// stack has the layers of a node's interfaces: for each index the interfaces directly below, whose frames it receives.
type stack struct {
	byIndex map[int]Interface
	below   map[int][]int
}

func stackOf(interfaces []Interface) stack {
	s := stack{map[int]Interface{}, map[int][]int{}}
	for _, i := range interfaces {
		s.byIndex[i.Index] = i
	}
	for _, i := range interfaces {
		if _, ok := s.byIndex[i.Parent]; ok {
			s.below[i.Index] = append(s.below[i.Index], i.Parent)
		}
		master, ok := s.byIndex[i.Master]
		if !ok {
			continue
		}
		s.below[master.Index] = append(s.below[master.Index], i.Index)
		if master.Kind != openvswitch {
			continue
		}
		// The master of all ports is the datapath, but the frames go to its internal ports, which are the bridges.
		for _, internal := range interfaces {
			if internal.Kind == openvswitch && internal.Index != master.Index && internal.Index != i.Index {
				s.below[internal.Index] = append(s.below[internal.Index], i.Index)
			}
		}
	}
	return s
}

const openvswitch = "openvswitch"

// layers returns the selected interfaces that are not to be counted, each with the names of the interfaces at which its frames
// are counted instead. Of the remaining interfaces none is above another, so no frame is counted twice.
//
// Frames are counted at the lowest selected interface. There are two exceptions, because these interfaces also receive frames
// that do not pass a selected interface below: a bond or a team, unless all its members are selected; and a physical interface
// that has members, such as Azure's hv_netvsc, whose virtual function receives only some of the frames.
func (s stack) layers(selected []Interface) (elsewhere map[int][]string) {
	counted := map[int]bool{}
	for _, i := range selected {
		counted[i.Index] = true
	}
	lowestFirst := slices.SortedStableFunc(slices.Values(selected), func(a, b Interface) int {
		return cmp.Compare(s.height(a.Index), s.height(b.Index))
	})
	above := map[int]int{} // by the index of a member that is not counted: its master
	for _, i := range lowestFirst {
		if !counted[i.Index] {
			continue
		}
		members := s.members(i)
		all := !slices.ContainsFunc(members, func(m int) bool { return !counted[m] })
		if i.Kind == "" || (i.Kind == "bond" || i.Kind == "team") && !all {
			for _, m := range members {
				if counted[m] {
					delete(counted, m)
					above[m] = i.Index
				}
			}
		}
	}
	for _, i := range selected {
		if counted[i.Index] && s.any(i.Index, counted) {
			delete(counted, i.Index)
		}
	}
	elsewhere = map[int][]string{}
	for _, i := range selected {
		if !counted[i.Index] {
			elsewhere[i.Index] = s.at(i.Index, counted, above)
		}
	}
	return elsewhere
}

// members returns the interfaces below i whose master is i.
func (s stack) members(i Interface) []int {
	var members []int
	for _, index := range s.below[i.Index] {
		if index != i.Index && s.byIndex[index].Master == i.Index {
			members = append(members, index)
		}
	}
	return members
}

// any reports whether one of the interfaces below is in the set.
func (s stack) any(index int, among map[int]bool) bool {
	found := false
	s.walk(index, func(below int) { found = found || among[below] && below != index })
	return found
}

// at returns the names of the counted interfaces below, or of the one above that is counted instead.
func (s stack) at(index int, counted map[int]bool, above map[int]int) []string {
	var names []string
	for from, ok := index, true; ok && len(names) == 0; from, ok = above[from] {
		s.walk(from, func(below int) {
			if counted[below] {
				names = append(names, s.byIndex[below].Name)
			}
		})
	}
	return names
}

// walk calls visit once for the interface and for each one below it.
func (s stack) walk(index int, visit func(int)) {
	seen := map[int]bool{}
	var down func(int)
	down = func(at int) {
		if seen[at] {
			return
		}
		seen[at] = true
		visit(at)
		for _, below := range s.below[at] {
			down(below)
		}
	}
	down(index)
}

// height returns the number of interfaces below. It is less than that of every interface above.
func (s stack) height(index int) int {
	height := -1
	s.walk(index, func(int) { height++ })
	return height
}
