package datapath

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/agent/xdp"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/bpf"
)

// Unpinned is the counting program on interfaces for as long as this process lives. Only the process holds it, so the
// kernel detaches it when the process ends, whatever ends it, and no bpffs is needed. It is for a program that counts
// for itself; an agent, whose counts shall outlive it, has a Datapath. Its methods are called one after another.
type Unpinned struct {
	bootID string
	layout *layout
	spec   *ebpf.CollectionSpec
	extack extackListener
	held   []held
}

// held is one attachment. Its table stays readable after its link was detached.
type held struct {
	id      uint32 // of the map
	link    link.Link
	table   table
	refused error // why native mode was not to be had
}

// OpenUnpinned attaches nothing yet. bootID is what names the kernel's present life in each traffic.MapID.
func OpenUnpinned(bootID string) (*Unpinned, error) {
	_ = rlimit.RemoveMemlock() // as in Open
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count the possible CPUs: %w", err)
	}
	spec, err := bpf.Spec(cpus)
	if err != nil {
		return nil, err
	}
	return &Unpinned{bootID: bootID, layout: layouts()[len(layouts())-1], spec: spec}, nil
}

// Attach makes the interface a.Index counted in a.Mode. Unlike Datapath.Attach it is an error if it is counted already,
// also by this Unpinned.
//
// Errors wrap those of package plan as Datapath.Attach's do. After an error nothing is attached that was not before.
func (u *Unpinned) Attach(a plan.Attachment) error {
	h, err := u.attach(a)
	if err != nil {
		return fmt.Errorf("attach %s: %w", a.Name, err)
	}
	u.held = append(u.held, h)
	return nil
}

func (u *Unpinned) attach(a plan.Attachment) (h held, err error) {
	if err := free(a.Index); err != nil {
		return held{}, err
	}
	counts, err := bpf.NewMap(u.spec)
	if err != nil {
		return held{}, permission(fmt.Errorf("make the map: %w", err))
	}
	defer counts.Close() // the mapping and the program hold it
	id, err := mapID(counts)
	if err != nil {
		return held{}, permission(err)
	}
	// Before it is attached, so that what can be counted can be read.
	t, err := mapTable(counts)
	if err != nil {
		return held{}, permission(fmt.Errorf("map the counts into memory: %w", err))
	}
	l, program, refused, err := attachLink(&u.extack, u.spec, counts, a)
	if err != nil {
		return held{}, errors.Join(err, t.unmap())
	}
	defer program.Close() // the link holds it
	return held{id: id, link: l, table: t, refused: refused}, nil
}

// Attached returns one fact per attachment in the order in which they were made: Index, Program, Map and Refused. Index and
// Program are 0 once the interface is gone or the program was detached.
func (u *Unpinned) Attached() ([]plan.Attachment, error) {
	var attached []plan.Attachment
	for _, h := range u.held {
		l, err := stateOf(h.link)
		if err != nil {
			return nil, err
		}
		attached = append(attached, plan.Attachment{Index: l.index, Program: l.program, Map: h.id, Refused: h.refused})
	}
	return attached, nil
}

// Read returns one reading per attachment in the order in which they were made, as Datapath.Read does, also of those
// that were detached.
func (u *Unpinned) Read() ([]traffic.Reading, error) {
	readings := make([]traffic.Reading, len(u.held))
	for i, h := range u.held {
		l, err := stateOf(h.link)
		if err != nil {
			return nil, err
		}
		readings[i].Map = traffic.MapID{Boot: u.bootID, ID: h.id}
		readings[i].Index = l.index
		u.layout.snapshot(h.table, &readings[i].Totals)
	}
	return readings, nil
}

// Detach takes the program off all interfaces, at once and not some time later as the kernel does by itself. What was
// counted can still be read. It is no error if an interface is gone, or to do it twice.
func (u *Unpinned) Detach() error {
	var errs []error
	for _, h := range u.held {
		if err := h.link.Detach(); err != nil {
			errs = append(errs, fmt.Errorf("detach: %w", xdp.WrapErrno(err)))
		}
	}
	return errors.Join(errs...)
}

// Close detaches and gives up the counts.
func (u *Unpinned) Close() error {
	errs := []error{u.Detach()}
	for _, h := range u.held {
		errs = append(errs, h.link.Close(), h.table.unmap())
	}
	u.held = nil
	return errors.Join(append(errs, u.extack.Close())...)
}

// Pinned returns what Attached does but changes nothing, for those who look on while an agent works with the same
// pins: what a killed Attach left stays, since it may be one that is not done yet, and Outdated is not judged.
func (d *Datapath) Pinned() ([]plan.Attachment, error) {
	folders, err := d.folders()
	if err != nil {
		return nil, permission(err)
	}
	var attached []plan.Attachment
	for _, f := range folders {
		a, err := d.pinned(f)
		switch {
		case errors.Is(err, os.ErrNotExist), errors.Is(err, errForeign):
		case err != nil:
			return nil, permission(err)
		default:
			attached = append(attached, a)
		}
	}
	return attached, nil
}
