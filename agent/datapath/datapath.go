// Package datapath is the kernel's edge: it puts the counting program on interfaces, finds it there again and reads
// its counts. All that it knows is in the pins of a bpffs, so a restart changes nothing:
//
//	<bpffs>/xdp-operator/v<layout>/<ifindex>/counts     the map, one table per possible CPU (bpf/counter.h)
//	                                        /refusal    a symbolic link that leads nowhere: why Auto is generic here
//	                                        /program    the program that counts into it
//	                                        /link       the attachment of the program to the interface
//
// They are made in this order, and removed in the other after the link was detached. A folder without a link is an
// attachment that is gone but whose counts may be wanted; one without counts is of no use to anybody.
//
// Where the hook is shared there is no program, link or refusal: programs and links are in the folder of the dispatcher
// (package dispatcher), and ours is the program that uses the map. While such a hook is being changed, what is to be
// cleared up should we be killed is beside the map:
//
//	/dispatcher  the dispatcher that is being made
//	/replaced    the one that it takes the place of
//
// Kernel 5.10 and later; CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, before 5.11 also CAP_SYS_RESOURCE or a raised limit
// of locked memory.
package datapath

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
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
	bpffs   string
	bootID  string
	cpus    int
	layouts []*layout // that can be read, the present one last
	spec    *ebpf.CollectionSpec

	tags func() (tags, error) // of the programs of spec, found out once

	extack extackListener // of the kernel, when it refuses

	// mtus holds, by map ID, the MTU that the interface had when its program was chosen, or when this process first
	// saw it.
	mtus map[uint32]int

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
	d := &Datapath{bpffs: bpffs, bootID: bootID, cpus: cpus, layouts: layouts(), spec: spec, mtus: map[uint32]int{}, tables: map[uint32]table{}}
	d.tags = sync.OnceValues(d.findTags)
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
	return errors.Join(append(errs, d.extack.Close())...)
}

// ProgramTag returns the kernel's tag of the program that Attach loads for an ordinary MTU, 16 hexadecimal digits that
// change with its instructions; "" if the program cannot be loaded here.
func (d *Datapath) ProgramTag() string {
	tags, err := d.tags()
	if err != nil {
		return ""
	}
	return tags[oneBuffer]
}

// Attached returns one fact per folder of pins that holds counts, also where the link or the interface is gone.
// Folders without counts, left by an Attach that was killed, are removed with what else is in them. What is pinned
// there and is not of this package is left out; Attach says so when it is in the way.
//
// The error says so if there are pins of a newer layout: their counts could not be told from new ones later.
func (d *Datapath) Attached() ([]plan.Attachment, error) {
	if err := d.finishMoves(); err != nil {
		return nil, err
	}
	folders, err := d.folders()
	if err != nil {
		return nil, err
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	var attached []plan.Attachment
	for _, f := range folders {
		if err := d.cleanInterruptedChange(f); err != nil {
			return nil, err
		}
		a, err := d.attachment(f, interfaces)
		switch {
		case errors.Is(err, os.ErrNotExist):
			if err := d.detach(f); err != nil {
				return nil, err
			}
		case errors.Is(err, errForeign):
		case err != nil:
			return nil, err
		default:
			attached = append(attached, a)
		}
	}
	maps.DeleteFunc(d.mtus, func(id uint32, _ int) bool {
		return !slices.ContainsFunc(attached, func(a plan.Attachment) bool { return a.Map == id })
	})
	return attached, nil
}

// attachment returns what a folder holds. The error wraps os.ErrNotExist if it holds no counts.
func (d *Datapath) attachment(f folder, interfaces []net.Interface) (plan.Attachment, error) {
	a, err := d.pinned(f)
	if err != nil || a.Index == 0 {
		return a, err
	}
	if a.ViaDispatcher {
		a.Outdated, err = d.otherMember(f, a)
		return a, err
	}
	other, err := d.otherVersion(f, a.Program)
	a.Outdated = d.mtuChanged(a, interfaces) || other || f.layout != d.current()
	if then, refused := f.loadFallbackReason(); refused != nil {
		a.Improved = then.improved(refused, readDeviceFacts(a.Index))
	}
	return a, err
}

// mtuChanged reports that the interface has not the MTU any more for which its program was chosen. An MTU that is not
// known is noted, and no change.
func (d *Datapath) mtuChanged(a plan.Attachment, interfaces []net.Interface) bool {
	at := slices.IndexFunc(interfaces, func(i net.Interface) bool { return i.Index == a.Index })
	if at < 0 {
		return false
	}
	if _, known := d.mtus[a.Map]; !known {
		d.mtus[a.Map] = interfaces[at].MTU
	}
	return d.mtus[a.Map] != interfaces[at].MTU
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
	l, err := d.state(f, id)
	if err != nil {
		return plan.Attachment{}, err
	}
	_, refused := f.loadFallbackReason()
	return plan.Attachment{Index: l.index, ViaDispatcher: l.viaDispatcher, Program: l.program, Map: id, Pin: f.path, Refused: refused}, nil
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
	l, err := d.state(f, id)
	if err != nil {
		return traffic.Reading{}, err
	}
	r := traffic.Reading{Map: traffic.MapID{Boot: d.bootID, ID: id}, Index: l.index}
	f.layout.snapshot(t, &r.Totals)
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

// layoutPins is the folder of the pins of one layout.
func (d *Datapath) layoutPins(l *layout) string {
	return filepath.Join(d.root(), "v"+strconv.Itoa(l.version))
}

// folder returns the folder of the pins that Attach makes for an interface.
func (d *Datapath) folder(index int) folder { return d.folderOf(d.current(), index) }

func (d *Datapath) folderOf(l *layout, index int) folder {
	return folder{path: filepath.Join(d.layoutPins(l), strconv.Itoa(index)), layout: l}
}
