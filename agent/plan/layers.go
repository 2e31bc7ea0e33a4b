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

// layering says at which interfaces the frames of the selected interfaces are counted.
type layering struct {
	counted   []Interface      // none is above another, so that no frame is counted twice; some are not selected themselves
	elsewhere map[int][]string // selected interfaces that are not counted, with the names of those that are counted instead
	empty     map[int]bool     // selected bonds and teams without members, which receive no frames
}

// layers returns where the selected interfaces are counted: at the lowest ones. There are three rules for members.
//
// A bond or a team is counted at its members, whether these are selected or not. With a program of its own in native mode, a
// bond refuses new members that have a program, that have no native XDP or whose MTU is too large, and it cannot change to
// the modes balance-tlb and balance-alb (bond_enslave and bond_option_mode_set of drivers/net/bonding). So members could not
// join because of us.
//
// If the bond or team or one of its members has a program of somebody else, the bond or team is counted itself, and its members
// are not: the hook of that member is in use, while the bond accepts generic mode or a dispatcher.
//
// A physical interface that has members is counted itself, because its members receive only some of its frames: Azure's
// hv_netvsc with its virtual function.
func (s stack) layers(selected []Interface, onHook func(Interface) owner) layering {
	l := layering{elsewhere: map[int][]string{}, empty: map[int]bool{}}
	all := s.withMembers(selected)
	slices.SortStableFunc(all, func(a, b Interface) int { return cmp.Compare(s.height(a.Index), s.height(b.Index)) })
	counted := map[int]bool{}
	for _, i := range all {
		counted[i.Index] = true
		if isBond(i) && len(s.members(i)) == 0 {
			delete(counted, i.Index)
			l.empty[i.Index] = true
		}
	}
	above := s.dropMembers(all, counted, onHook)
	for _, i := range all {
		if counted[i.Index] && s.any(i.Index, counted) {
			delete(counted, i.Index)
		}
		if counted[i.Index] {
			l.counted = append(l.counted, i)
		}
	}
	for _, i := range selected {
		if !counted[i.Index] && !l.empty[i.Index] {
			l.elsewhere[i.Index] = s.at(i.Index, counted, above)
		}
	}
	return l
}

// withMembers returns the interfaces and the members of the bonds and teams among them, each once.
func (s stack) withMembers(selected []Interface) (all []Interface) {
	seen := map[int]bool{}
	for todo := slices.Clone(selected); len(todo) > 0; todo = todo[1:] {
		i := todo[0]
		if seen[i.Index] {
			continue
		}
		seen[i.Index] = true
		all = append(all, i)
		if isBond(i) {
			for _, m := range s.members(i) {
				todo = append(todo, s.byIndex[m])
			}
		}
	}
	return all
}

// dropMembers removes from the counted interfaces the members of those that are counted themselves. It returns the master of
// each such member.
func (s stack) dropMembers(all []Interface, counted map[int]bool, onHook func(Interface) owner) (above map[int]int) {
	above = map[int]int{}
	for _, i := range all {
		if !counted[i.Index] || !s.countedItself(i, onHook) {
			continue
		}
		for _, m := range s.members(i) {
			if counted[m] {
				delete(counted, m)
				above[m] = i.Index
			}
		}
	}
	return above
}

// countedItself reports whether an interface that has members is counted itself, and not its members.
func (s stack) countedItself(i Interface, onHook func(Interface) owner) bool {
	switch {
	case !isBond(i):
		return i.Kind == ""
	case onHook(i) == shared || onHook(i) == somebodyElse:
		return true
	default:
		return slices.ContainsFunc(s.members(i), func(m int) bool { return onHook(s.byIndex[m]) == somebodyElse })
	}
}

// CountedAt returns the interfaces at which the frames of i are counted if nothing else is selected: the members of a bond or
// team, none if it has no members, and i itself in other cases. have are our attachments. See layers.
func CountedAt(i Interface, interfaces []Interface, have []Attachment) []Interface {
	onHook := func(i Interface) owner { return ownerOf(i, have) }
	return stackOf(interfaces).layers([]Interface{i}, onHook).counted
}

// owner is whose program is on a hook.
type owner int

const (
	nobody owner = iota
	we
	shared // our program is called by a dispatcher, which may call others too
	somebodyElse
)

// ownerOf returns whose program is on the hook of an interface. have are our attachments.
func ownerOf(i Interface, have []Attachment) owner {
	if i.Hook == (Hook{}) {
		return nobody
	}
	switch at := slices.IndexFunc(have, func(h Attachment) bool { return h.Live(i) }); {
	case at < 0:
		return somebodyElse
	case have[at].ViaDispatcher:
		return shared
	default:
		return we
	}
}

func isBond(i Interface) bool { return i.Kind == "bond" || i.Kind == "team" }

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

// height returns the number of interfaces below, and the interface itself. It is less than that of every interface above.
func (s stack) height(index int) (height int) {
	s.walk(index, func(int) { height++ })
	return height
}
