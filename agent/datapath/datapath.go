// Package datapath is the kernel's edge: it puts the counting program on interfaces, finds it there again and reads
// its counts. All that it knows is in the pins of a bpffs, so a restart changes nothing:
//
//	<bpffs>/xdp-operator/v<layout>/<ifindex>/counts     the map, one table per possible CPU (bpf/counter.h)
//	                                        /program    the program that counts into it
//	                                        /link       the attachment of the program to the interface
//
// They are made in this order and removed in the other, after the link was detached. A folder without a link is an
// attachment that is gone but whose counts may be wanted; one without counts is of no use to anybody.
//
// Kernel 5.10 and later; CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, before 5.11 also CAP_SYS_RESOURCE or a raised limit
// of locked memory.
package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/bpf"
)

// Datapath is the project's part of one bpffs. Read may be called at any time; the others one after another.
type Datapath struct {
	bpffs  string
	bootID string
	cpus   int
	spec   *ebpf.CollectionSpec

	tag func() (string, error) // of the program of spec, found out once

	mu     sync.Mutex
	tables map[uint32]table // by map ID, mapped when first read
}

// Open returns the attachments pinned in a bpffs, ready to be read and changed. It changes nothing itself. bootID is
// what names the kernel's present life in each traffic.MapID (/proc/sys/kernel/random/boot_id).
//
// The error wraps plan.ErrBPFFSNotMounted if there is no bpffs at that path.
func Open(bpffs, bootID string) (*Datapath, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(bpffs, &fs); err != nil {
		return nil, fmt.Errorf("%w at %s: %w", plan.ErrBPFFSNotMounted, bpffs, err)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		return nil, fmt.Errorf("%w at %s", plan.ErrBPFFSNotMounted, bpffs)
	}
	// Kernels before 5.11 charge maps to this limit. Later ones do not need it, and where it may not be raised it
	// may still suffice: the kernel says so when a map is made.
	_ = rlimit.RemoveMemlock()

	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count the possible CPUs: %w", err)
	}
	spec, err := bpf.Spec(cpus)
	if err != nil {
		return nil, err
	}
	d := &Datapath{bpffs: bpffs, bootID: bootID, cpus: cpus, spec: spec, tables: map[uint32]table{}}
	d.tag = sync.OnceValues(d.findTag)
	return d, nil
}

// Close unmaps what was read. It never detaches.
func (d *Datapath) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for id := range d.tables {
		errs = append(errs, d.forget(id))
	}
	return errors.Join(errs...)
}

// ProgramTag returns the kernel's tag of the program that Attach loads, 16 hexadecimal digits that change with its
// instructions; "" if the program cannot be loaded here.
func (d *Datapath) ProgramTag() string {
	tag, err := d.tag()
	if err != nil {
		return ""
	}
	return tag
}

// findTag loads the program for nothing but its tag: kernels differ in how they compute it (SHA-1, from 6.18
// SHA-256).
func (d *Datapath) findTag() (string, error) {
	counts, err := bpf.NewMap(d.spec)
	if err != nil {
		return "", err
	}
	defer counts.Close()
	program, err := bpf.NewProgram(d.spec, counts)
	if err != nil {
		return "", err
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return "", err
	}
	return info.Tag, nil
}

// Attached returns one fact per folder of pins that holds counts, also where the link or the interface is gone.
// Folders without counts, left by an Attach that was killed, are removed with what else is in them. What is pinned there and is not of this
// package is left out; Attach says so when it is in the way.
func (d *Datapath) Attached() ([]plan.Attachment, error) {
	folders, err := d.folders()
	if err != nil {
		return nil, err
	}
	var attached []plan.Attachment
	for _, f := range folders {
		a, err := d.attachment(f)
		switch {
		case errors.Is(err, os.ErrNotExist):
			if err := detach(f); err != nil {
				return nil, err
			}
		case errors.Is(err, errForeign):
		case err != nil:
			return nil, err
		default:
			attached = append(attached, a)
		}
	}
	return attached, nil
}

// attachment returns what a folder holds. The error wraps os.ErrNotExist if it holds no counts.
func (d *Datapath) attachment(f folder) (plan.Attachment, error) {
	a, err := d.pinned(f)
	if err != nil || a.Index == 0 {
		return a, err
	}
	a.Outdated, err = d.outdated(f, linkState{index: a.Index, program: a.Program})
	return a, err
}

// pinned is attachment without a judgement of the program's version.
func (d *Datapath) pinned(f folder) (plan.Attachment, error) {
	counts, id, err := d.counts(f)
	if err != nil {
		return plan.Attachment{}, err
	}
	if err := counts.Close(); err != nil {
		return plan.Attachment{}, err
	}
	l, err := f.link()
	if err != nil {
		return plan.Attachment{}, err
	}
	return plan.Attachment{Index: l.index, Program: l.program, Map: id, Pin: f.path}, nil
}

// outdated reports that the link runs another program than Attach would load, or one that is not pinned beside it.
func (d *Datapath) outdated(f folder, l linkState) (bool, error) {
	ours, err := d.tag()
	if err != nil {
		return false, nil //nolint:nilerr // a program that cannot be loaded here is nothing better to offer
	}
	id, tag, err := f.program()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errForeign) {
		return true, nil
	}
	return id != l.program || tag != ours, err
}

// Read returns one reading per attachment, also of those whose link or interface is gone: what was counted since the
// map was made. Packets are frames at the XDP hook, bytes run from the Ethernet header without FCS. A frame that is
// just being counted may be in Packets and not yet in Bytes.
//
// The error is of no single attachment: a map that cannot be read now must not look like one that is gone.
func (d *Datapath) Read() ([]traffic.Reading, error) {
	folders, err := d.folders()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var readings []traffic.Reading
	seen := map[uint32]bool{}
	for _, f := range folders {
		r, err := d.reading(f)
		switch {
		case errors.Is(err, os.ErrNotExist), errors.Is(err, errForeign):
		case err != nil:
			return nil, err
		default:
			readings = append(readings, r)
			seen[r.Map.ID] = true
		}
	}
	for id := range d.tables {
		if !seen[id] { // detached: a mapping would keep the kernel's memory
			if err := d.forget(id); err != nil {
				return nil, err
			}
		}
	}
	return readings, nil
}

func (d *Datapath) reading(f folder) (traffic.Reading, error) {
	counts, id, err := d.counts(f)
	if err != nil {
		return traffic.Reading{}, err
	}
	defer counts.Close()
	t, ok := d.tables[id]
	if !ok {
		if t, err = mapTable(counts); err != nil {
			return traffic.Reading{}, fmt.Errorf("map %s into memory: %w", f.counts(), err)
		}
		d.tables[id] = t
	}
	l, err := f.link()
	if err != nil {
		return traffic.Reading{}, err
	}
	r := traffic.Reading{Map: traffic.MapID{Boot: d.bootID, ID: id}, Index: l.index}
	snapshot(t, &r.Totals)
	return r, nil
}

// forget unmaps a table. The caller holds mu.
func (d *Datapath) forget(id uint32) error {
	t := d.tables[id]
	delete(d.tables, id)
	if err := t.unmap(); err != nil {
		return fmt.Errorf("unmap the counts of map %d: %w", id, err)
	}
	return nil
}

// root is the folder of all pins of the project, of any layout.
func (d *Datapath) root() string {
	return filepath.Join(d.bpffs, "xdp-operator")
}

// layout is the folder of the pins of this layout.
func (d *Datapath) layout() string {
	return filepath.Join(d.root(), "v"+strconv.Itoa(bpf.Layout))
}

// folder returns the folder of the pins of an interface.
func (d *Datapath) folder(index int) folder {
	return folder{path: filepath.Join(d.layout(), strconv.Itoa(index))}
}
