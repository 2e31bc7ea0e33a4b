// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/xdp-operator/xdp-operator/agent/datapath"
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

// open returns a source for the interfaces in the options. If one of them fails, nothing stays attached and the error names
// it. The boot ID of the readings is empty, because they are only used by this process.
func open(o options, list func() ([]plan.Interface, error)) (source, error) {
	interfaces, err := list()
	if err != nil {
		return nil, err
	}
	if o.pinned {
		return openPins(o, interfaces)
	}
	planned, err := attachments(o.names, o.mode, interfaces)
	if err != nil {
		return nil, err
	}
	u, err := datapath.OpenUnpinned("")
	if err != nil {
		return nil, err
	}
	for _, a := range planned {
		if err := u.Attach(a); err != nil {
			return nil, errors.Join(explain(err, a, list), u.Close())
		}
	}
	return u, nil
}

func openPins(o options, interfaces []plan.Interface) (source, error) {
	selected, err := resolve(o.names, interfaces)
	if err != nil {
		return nil, err
	}
	d, err := datapath.Open(o.bpffs, "")
	if err != nil {
		return nil, err
	}
	p := pins{d}
	attached, err := p.Attached()
	if err == nil {
		err = unpinned(o.bpffs, selected, attached, interfaces)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return p, nil
}

// attachments returns the attachments to make, in the order of the names. It returns an error that lists the interfaces that
// do not exist or whose hook is in use. This is checked first, because attaching to the other interfaces resets some drivers.
func attachments(names []string, mode plan.Mode, interfaces []plan.Interface) ([]plan.Attachment, error) {
	selected, err := resolve(names, interfaces)
	if err != nil {
		return nil, err
	}
	var planned []plan.Attachment
	var busy []string
	for _, i := range selected {
		if i.Hook != (plan.Hook{}) {
			busy = append(busy, fmt.Sprintf("%s has program id %d in %s mode", i.Name, i.Hook.Program, cmp.Or(i.Hook.Mode, "offload")))
		}
		planned = append(planned, plan.Attachment{Index: i.Index, Name: i.Name, Mode: mode})
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
	if _, detailed := attachments([]string{a.Name}, a.Mode, interfaces); detailed != nil {
		return detailed
	}
	return err
}

// resolve returns the interfaces with the names or alternative names, in the order of the names. It returns an error that lists
// the names without an interface, or that says which names are of one interface.
func resolve(names []string, interfaces []plan.Interface) ([]plan.Interface, error) {
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
		found = append(found, i)
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
