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

// source is what counts: datapath.Unpinned, or the pins of an agent.
type source interface {
	Attached() ([]plan.Attachment, error)
	Read() ([]traffic.Reading, error)
	Detach() error // what was attached by us; the counts can still be read
	Close() error
}

// pins are what an agent counts.
type pins struct {
	*datapath.Datapath
}

// Attached returns what is pinned, in the order of the interfaces' indexes.
func (p pins) Attached() ([]plan.Attachment, error) {
	attached, err := p.Pinned()
	slices.SortStableFunc(attached, func(a, b plan.Attachment) int { return cmp.Compare(a.Index, b.Index) })
	return attached, err
}

// Detach leaves what is not ours.
func (pins) Detach() error { return nil }

// open returns what counts the interfaces that the options name: all of them, or none is attached and the error says
// which is at fault. The boot ID of the readings is empty, since none outlives this process.
func open(o options, list func() ([]plan.Interface, error)) (source, error) {
	interfaces, err := list()
	if err != nil {
		return nil, err
	}
	if o.pinned {
		return openPins(o, interfaces)
	}
	wishes, err := wanted(o.names, o.mode, interfaces)
	if err != nil {
		return nil, err
	}
	u, err := datapath.OpenUnpinned("")
	if err != nil {
		return nil, err
	}
	for _, wish := range wishes {
		if err := u.Attach(wish); err != nil {
			return nil, errors.Join(explained(err, wish, list), u.Close())
		}
	}
	return u, nil
}

func openPins(o options, interfaces []plan.Interface) (source, error) {
	if err := missing(o.names, interfaces); err != nil {
		return nil, err
	}
	d, err := datapath.Open(o.bpffs, "")
	if err != nil {
		return nil, err
	}
	p := pins{d}
	attached, err := p.Attached()
	if err == nil {
		err = unpinned(o, attached, interfaces)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return p, nil
}

// wanted returns what shall be attached, in the order of the names. The error names the interfaces that do not exist
// or whose hook is in use: what cannot work is not tried, since attaching to the others would reset some drivers.
func wanted(names []string, mode plan.Mode, interfaces []plan.Interface) ([]plan.Attachment, error) {
	if err := missing(names, interfaces); err != nil {
		return nil, err
	}
	var wishes []plan.Attachment
	var busy []string
	for _, name := range names {
		i := byName(interfaces, name)
		if i.Hook != (plan.Hook{}) {
			busy = append(busy, fmt.Sprintf("%s has program id %d in %s mode", name, i.Hook.Program, cmp.Or(i.Hook.Mode, "offload")))
		}
		wishes = append(wishes, plan.Attachment{Index: i.Index, Name: name, Mode: mode})
	}
	if busy != nil {
		return nil, fmt.Errorf("%w: %s (bpftool prog show tells whose it is; what an agent counts is read by --pinned)",
			plan.ErrHookInUse, strings.Join(busy, ", "))
	}
	return wishes, nil
}

// explained returns why an attempt failed in the words of wanted, if that is still to be seen.
func explained(err error, wish plan.Attachment, list func() ([]plan.Interface, error)) error {
	if !errors.Is(err, plan.ErrHookInUse) && !errors.Is(err, plan.ErrInterfaceGone) {
		return err
	}
	interfaces, listing := list()
	if listing != nil {
		return err
	}
	if _, why := wanted([]string{wish.Name}, wish.Mode, interfaces); why != nil {
		return why
	}
	return err
}

// missing returns an error that names those that there are not.
func missing(names []string, interfaces []plan.Interface) error {
	var none []string
	for _, name := range names {
		if byName(interfaces, name).Index == 0 {
			none = append(none, name)
		}
	}
	if none != nil {
		return fmt.Errorf("%w: %s", errNoInterface, strings.Join(none, ", "))
	}
	return nil
}

// unpinned returns an error if nothing is counted by an agent on one of the interfaces that are named, or if none is,
// on any.
func unpinned(o options, attached []plan.Attachment, interfaces []plan.Interface) error {
	var counted, none []string
	for _, a := range attached {
		if i := byIndex(interfaces, a.Index); a.Live(i) {
			counted = append(counted, i.Name)
		}
	}
	for _, name := range o.names {
		if !slices.Contains(counted, name) {
			none = append(none, name)
		}
	}
	switch {
	case none != nil:
		return fmt.Errorf("%w in %s for %s: no agent counts there", errNothingPinned, o.bpffs, strings.Join(none, ", "))
	case counted == nil:
		return fmt.Errorf("%w in %s: no agent counts here", errNothingPinned, o.bpffs)
	default:
		return nil
	}
}

// byName returns the zero value if there is none.
func byName(interfaces []plan.Interface, name string) plan.Interface {
	return theOne(interfaces, func(i plan.Interface) bool { return i.Name == name })
}

// byIndex returns the zero value if there is none.
func byIndex(interfaces []plan.Interface, index int) plan.Interface {
	return theOne(interfaces, func(i plan.Interface) bool { return i.Index == index })
}

func theOne(interfaces []plan.Interface, fits func(plan.Interface) bool) plan.Interface {
	if i := slices.IndexFunc(interfaces, fits); i >= 0 {
		return interfaces[i]
	}
	return plan.Interface{}
}
