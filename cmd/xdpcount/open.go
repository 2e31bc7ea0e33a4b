// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/xdp-operator/xdp-operator/agent/datapath"
	"github.com/xdp-operator/xdp-operator/agent/links"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// source provides counts. It is a datapath.Unpinned, or the pinned maps of an agent.
type source interface {
	Attached() ([]plan.Attachment, error)
	Read() ([]traffic.Reading, error)
	Detach() error // detaches what this process has attached; the counts can still be read
	Close() error
}

// own is what this process attaches.
type own struct {
	*datapath.Unpinned
	aggregates bool // in generic mode, an aggregate counts as one packet
}

// Attached returns the attachments of the Unpinned, with CountsAggregates, also in native mode, where there are no aggregates.
func (o own) Attached() ([]plan.Attachment, error) {
	attached, err := o.Unpinned.Attached()
	for i := range attached {
		attached[i].CountsAggregates = o.aggregates
	}
	return attached, err
}

// pins reads the maps that an agent has pinned.
type pins struct {
	*datapath.Datapath
}

// Attached returns the pinned attachments, sorted by interface index.
func (p pins) Attached() ([]plan.Attachment, error) {
	attached, err := p.Pinned()
	slices.SortStableFunc(attached, func(a, b plan.Attachment) int { return cmp.Compare(a.Index, b.Index) })
	return attached, err
}

// Detach does nothing, because the agent has attached the programs.
func (pins) Detach() error { return nil }

// open returns a source for the interfaces in the options, and the names of those that are to be shown, none for all. If one of
// them fails, nothing stays attached and the error names it. The boot ID of the readings is empty, because they are only used by
// this process.
func open(o options, list func() ([]plan.Interface, error)) (s source, shown []string, err error) {
	interfaces, err := list()
	if err != nil {
		return nil, nil, err
	}
	if o.pinned {
		return openPins(o, interfaces)
	}
	selected, err := resolve(o.names, interfaces, nil)
	if err != nil {
		return nil, nil, err
	}
	planned, err := attachments(selected, o.mode)
	if err != nil {
		return nil, nil, err
	}
	u, err := datapath.OpenUnpinned("")
	if err != nil {
		return nil, nil, err
	}
	for _, a := range planned {
		if a.First == plan.Generic && (!u.CountsWireFrames() || links.Links{}.DecryptsTunnels() || links.Links{}.HasSCTP()) {
			a.First = "" // generic mode would not be exact, or be dangerous: as in the agent
		}
		if err := u.Attach(a); err != nil {
			return nil, nil, errors.Join(explain(err, a, list), u.Close())
		}
	}
	return own{u, o.mode != plan.Native && !u.CountsWireFrames()}, namesOf(selected), nil
}

func openPins(o options, interfaces []plan.Interface) (s source, shown []string, err error) {
	d, err := datapath.Open(o.bpffs, "")
	if err != nil {
		return nil, nil, err
	}
	p := pins{d}
	attached, err := p.Attached()
	var selected []plan.Interface
	if err == nil {
		selected, err = resolve(o.names, interfaces, attached)
	}
	if err == nil {
		err = unpinned(o.bpffs, selected, attached, interfaces)
	}
	if err != nil {
		return nil, nil, errors.Join(err, d.Close())
	}
	return p, namesOf(selected), nil
}

func namesOf(interfaces []plan.Interface) (names []string) {
	for _, i := range interfaces {
		names = append(names, i.Name)
	}
	return names
}

// attachments returns the attachments to make. It returns an error that lists the interfaces whose hook is in use. This is checked
// first, because attaching to the other interfaces resets some drivers.
func attachments(selected []plan.Interface, mode plan.Mode) ([]plan.Attachment, error) {
	var planned []plan.Attachment
	var busy []string
	for _, i := range selected {
		if i.Hook != (plan.Hook{}) {
			busy = append(busy, fmt.Sprintf("%s has program id %d in %s mode", i.Name, i.Hook.Program, cmp.Or(i.Hook.Mode, "offload")))
		}
		a := plan.Attachment{Index: i.Index, Name: i.Name, Mode: mode}
		if mode == plan.Auto {
			a.First = plan.FirstOf(i)
		}
		planned = append(planned, a)
	}
	if busy != nil {
		return nil, fmt.Errorf("%w: %s (bpftool prog show shows its owner; to read the counts of an agent, use --pinned)",
			plan.ErrHookInUse, strings.Join(busy, ", "))
	}
	return planned, nil
}

// explain returns the more detailed error of attachments if it still applies after attaching has failed.
func explain(err error, a plan.Attachment, list func() ([]plan.Interface, error)) error {
	if !errors.Is(err, plan.ErrHookInUse) && !errors.Is(err, plan.ErrInterfaceGone) {
		return err
	}
	interfaces, listErr := list()
	if listErr != nil {
		return err
	}
	selected, detailed := resolve([]string{a.Name}, interfaces, nil)
	if detailed == nil {
		_, detailed = attachments(selected, a.Mode)
	}
	if detailed != nil {
		return detailed
	}
	return err
}

// resolve returns the interfaces with the names or alternative names, in the order of the names; for a bond or team its members,
// because it is counted there (plan.CountedAt). It returns an error that lists the names without an interface, that names a
// bond without members, or that says which names are of one interface. have are our attachments.
func resolve(names []string, interfaces []plan.Interface, have []plan.Attachment) ([]plan.Interface, error) {
	var found []plan.Interface
	var none []string
	given := map[int]string{} // by index
	for _, name := range names {
		i := find(interfaces, func(i plan.Interface) bool { return i.HasName(name) })
		if i.Index == 0 {
			none = append(none, name)
			continue
		}
		if other, twice := given[i.Index]; twice {
			return nil, fmt.Errorf("%w: %q and %q are one interface", errUsage, other, name)
		}
		given[i.Index] = name
		at := plan.CountedAt(i, interfaces, have)
		if len(at) == 0 {
			return nil, fmt.Errorf("%s: %w", i.Name, plan.ErrNoMembers)
		}
		for _, i := range at {
			if !slices.ContainsFunc(found, func(f plan.Interface) bool { return f.Index == i.Index }) {
				found = append(found, i)
			}
		}
	}
	if none != nil {
		return nil, fmt.Errorf("%w: %s", errNoInterface, strings.Join(none, ", "))
	}
	return found, nil
}

// unpinned returns an error if no agent counts on one of the selected interfaces or, if none is selected, on any interface.
func unpinned(bpffs string, selected []plan.Interface, attached []plan.Attachment, interfaces []plan.Interface) error {
	counted := map[int]bool{} // by index
	for _, a := range attached {
		if a.Live(byIndex(interfaces, a.Index)) {
			counted[a.Index] = true
		}
	}
	var none []string
	for _, i := range selected {
		if !counted[i.Index] {
			none = append(none, i.Name)
		}
	}
	switch {
	case none != nil:
		return fmt.Errorf("%w in %s for %s: no agent counts on it", errNothingPinned, bpffs, strings.Join(none, ", "))
	case len(counted) == 0:
		return fmt.Errorf("%w in %s: no agent counts here", errNothingPinned, bpffs)
	default:
		return nil
	}
}

// byIndex returns the interface with the index, or the zero value.
func byIndex(interfaces []plan.Interface, index int) plan.Interface {
	return find(interfaces, func(i plan.Interface) bool { return i.Index == index })
}

func find(interfaces []plan.Interface, match func(plan.Interface) bool) plan.Interface {
	if i := slices.IndexFunc(interfaces, match); i >= 0 {
		return interfaces[i]
	}
	return plan.Interface{}
}
