package plan

import (
	"cmp"
	"slices"
)

// stack is how the interfaces of a node are stacked: by index those right below each, whose frames it receives.
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
		// The master of all ports is the datapath, but their frames go to its internal ports: the bridges.
		for _, internal := range interfaces {
			if internal.Kind == openvswitch && internal.Index != master.Index && internal.Index != i.Index {
				s.below[internal.Index] = append(s.below[internal.Index], i.Index)
			}
		}
	}
	return s
}

const openvswitch = "openvswitch"

// layers returns, for those of the selected interfaces that shall not be counted, the names of those at which their
// frames are counted instead. So no frame is counted twice: no two of the others are above one another.
//
// Frames are counted where they come in: at the lowest interface that is selected. The exceptions are interfaces that
// get more than the selected ones below them bring, all of whose frames they have too: a bond or a team, unless all its
// members are selected, and what has members without being of a virtual kind, such as Azure's hv_netvsc, whose virtual
// function brings only a part.
func (s stack) layers(selected []Interface) (elsewhere map[int][]string) {
	counted := map[int]bool{}
	for _, i := range selected {
		counted[i.Index] = true
	}
	lowestFirst := slices.SortedStableFunc(slices.Values(selected), func(a, b Interface) int {
		return cmp.Compare(s.height(a.Index), s.height(b.Index))
	})
	above := map[int]int{} // by index of a member that is not counted, its master
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

// members are the interfaces below i that have it for their master.
func (s stack) members(i Interface) []int {
	var members []int
	for _, index := range s.below[i.Index] {
		if index != i.Index && s.byIndex[index].Master == i.Index {
			members = append(members, index)
		}
	}
	return members
}

// any reports that one of the interfaces below is among these.
func (s stack) any(index int, among map[int]bool) bool {
	found := false
	s.walk(index, func(below int) { found = found || among[below] && below != index })
	return found
}

// at names the counted interfaces below, or the one above that took their place.
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

// walk visits the interface and all below it, each once.
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

// height is how many interfaces are below: less than of anything above.
func (s stack) height(index int) int {
	height := -1
	s.walk(index, func(int) { height++ })
	return height
}
