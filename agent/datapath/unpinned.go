// SPDX-License-Identifier: Apache-2.0

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

// Unpinned attaches the counting program for the lifetime of the process. Nothing is pinned, so the kernel detaches the program
// when the process ends, for whatever cause, and no bpffs is needed. It is for a command that counts for itself. An agent,
// whose counts must survive a restart, uses Datapath. Its methods must not be called concurrently.
type Unpinned struct {
	bootID string
	layout *layout
	spec   *ebpf.CollectionSpec
	extack extackListener
	held   []held
}

// held is one attachment. Its table can be read after its link was detached.
type held struct {
	id      uint32 // of the map
	link    link.Link
	table   table
	refused error // why native mode was refused
	off     []switchedOff
}

// OpenUnpinned attaches nothing. bootID identifies the kernel's boot in each traffic.MapID.
func OpenUnpinned(bootID string) (*Unpinned, error) {
	_ = rlimit.RemoveMemlock() // as in Open
	cpus, err := bpf.PossibleCPUs()
	if err != nil {
		return nil, err
	}
	spec, err := bpf.Spec(cpus)
	if err != nil {
		return nil, err
	}
	return &Unpinned{bootID: bootID, layout: layouts()[len(layouts())-1], spec: spec}, nil
}

// CountsWireFrames is Datapath.CountsWireFrames.
func (u *Unpinned) CountsWireFrames() bool { return newTags(&u.spec).countsWireFrames() }

// Attach attaches the counting program to the interface a.Index in a.Mode. Unlike for Datapath.Attach, it is an error if the
// interface is counted already, also by this Unpinned.
//
// Errors wrap those of package plan as those of Datapath.Attach do. After an error nothing is left that was not there before.
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
	defer counts.Close() // the mapping and the program keep it
	id, err := mapID(counts)
	if err != nil {
		return held{}, permission(err)
	}
	// Mapped before the program is attached, so that all counts can be read.
	t, err := mapTable(counts)
	if err != nil {
		return held{}, permission(fmt.Errorf("map the counts into memory: %w", err))
	}
	features := readFeatures(a.Index, func() (others []switchedOff) {
		for _, h := range u.held {
			others = append(others, h.off...)
		}
		return others
	})
	l, program, refused, err := attachLink(&u.extack, u.spec, counts, a)
	if err != nil {
		return held{}, errors.Join(err, restoreFeatures(features.compare()), t.unmap())
	}
	defer program.Close() // the link keeps it
	return held{id: id, link: l, table: t, refused: refused, off: features.compare()}, nil
}

// Attached returns the attachments in the order of their creation, with Index, Program, Map and Refused. Index and Program are
// 0 after the interface was deleted or the program was detached.
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

// Read returns one reading per attachment in the order of their creation, as Datapath.Read does, also of those that were
// detached.
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

// Detach detaches the program from all interfaces immediately, without which the kernel does so some time after Close, and
// restores their features, which the kernel does not do if the process is killed. The counts can still be read. It is no error if
// an interface is gone, or if Detach is called twice.
func (u *Unpinned) Detach() error {
	var errs []error
	for _, h := range u.held {
		if err := h.link.Detach(); err != nil {
			errs = append(errs, fmt.Errorf("detach: %w", xdp.WrapErrno(err)))
		}
	}
	for i := range u.held { // when all are detached: an interface can be below another
		errs = append(errs, restoreFeatures(u.held[i].off))
		u.held[i].off = nil
	}
	return errors.Join(errs...)
}

// Close detaches and releases the counts.
func (u *Unpinned) Close() error {
	errs := []error{u.Detach()}
	for _, h := range u.held {
		errs = append(errs, h.link.Close(), h.table.unmap())
	}
	u.held = nil
	return errors.Join(append(errs, u.extack.Close())...)
}

// Pinned returns the same attachments as Attached but changes nothing. It is for a process that reads while an agent works with
// the same pins: a folder without counts stays, since an Attach of the agent may be running. Outdated is not set.
func (d *Datapath) Pinned() ([]plan.Attachment, error) {
	return listMounted(d, d.listPinned)
}

func (d *Datapath) listPinned() ([]plan.Attachment, error) {
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
