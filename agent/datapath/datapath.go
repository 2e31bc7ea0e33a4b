// SPDX-License-Identifier: Apache-2.0

// Package datapath attaches the counting program to interfaces, finds it again after a restart, and reads its counts. Its
// whole state is in the pins of a bpffs:
//
//	<bpffs>/xdp-operator/v<layout>/<netns>/<ifindex>/counts     the map, one table per possible CPU (bpf/counter.h)
//	                                                /refusal    a symbolic link without a target file: why Auto is generic here
//	                                                /features   a symbolic link without a target file: what the attach has switched off
//	                                                /program    the program that counts into it
//	                                                /link       the attachment of the program to the interface
//
// They are created in this order, and removed in the reverse order after the link was detached. A folder without a link
// belongs to an attachment that is gone; its counts may still be needed. A folder without counts is removed.
//
// Indexes of interfaces are unique within a network namespace only, and several network namespaces can use one bpffs: the nodes
// of kind and k3d use that of their host. So a Datapath belongs to one network namespace, that of the thread that opened it, and
// changes only the folders of that namespace. namespaceName says what <netns> is. All methods must be called in that namespace,
// except those that only read maps.
//
// The bpffs can be mounted later than the Datapath is opened, and it can disappear. While it is not visible, the programs
// continue to count as long as it exists. So it is an error then, and not an empty list, to ask what is attached or counted.
//
// If the hook is shared, there is no program, link or refusal: the programs and links are in the folder of the dispatcher
// (package dispatcher), and our program is the one that uses the map. While the dispatcher is changed, these pins are beside
// the map, so that a change that is killed can be cleaned up:
//
//	/dispatcher  the new dispatcher
//	/replaced    the one that it replaces
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

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/bpf"
)

// Datapath has the project's pins in one bpffs. Read and Programs may be called concurrently, the other methods not. While no
// bpffs is mounted at the path, the error of every method that uses pins wraps plan.ErrBPFFSNotMounted, and nothing is changed.
type Datapath struct {
	bpffs   string
	netns   string // the network namespace (namespaceName)
	bootID  string
	cpus    int
	layouts []*layout // those that can be read, the current one last
	spec    *ebpf.CollectionSpec

	tags *tags // of the programs of spec

	extack extackListener // of the kernel, when it refuses

	// mtus has, by map ID, the MTU that the interface had when its program was chosen, or when this process first read it.
	mtus map[uint32]int
	// modes has, by map ID, the mode of the attachment, which does not change.
	modes map[uint32]plan.Mode
	// switchedOff has, by map ID, which features the attachment has switched off.
	switchedOff map[uint32][]plan.SwitchedOff

	mu     sync.Mutex
	tables map[uint32]table // by map ID, mapped at the first read
}

// Open returns the Datapath of a bpffs and of the network namespace of the calling thread. It changes nothing, and the bpffs need
// not be mounted yet. bootID identifies the kernel's boot in each traffic.MapID (/proc/sys/kernel/random/boot_id).
func Open(bpffs, bootID string) (*Datapath, error) {
	// Kernels before 5.11 charge maps to this limit. Later ones do not need it. An error is ignored, because the present limit
	// may be large enough; if it is not, creating a map fails.
	_ = rlimit.RemoveMemlock()

	netns, err := namespaceName()
	if err != nil {
		return nil, err
	}
	cpus, err := bpf.PossibleCPUs()
	if err != nil {
		return nil, err
	}
	spec, err := bpf.Spec(cpus)
	if err != nil {
		return nil, err
	}
	d := &Datapath{
		bpffs: bpffs, netns: netns, bootID: bootID, cpus: cpus, layouts: layouts(), spec: spec,
		mtus: map[uint32]int{}, modes: map[uint32]plan.Mode{},
		switchedOff: map[uint32][]plan.SwitchedOff{}, tables: map[uint32]table{},
	}
	d.tags = newTags(&d.spec)
	return d, nil
}

// Close unmaps the maps that were read. It detaches nothing.
func (d *Datapath) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for id := range d.tables {
		errs = append(errs, d.forget(id))
	}
	return errors.Join(append(errs, d.extack.Close())...)
}

// ProgramTag returns the kernel's tag of the program that Attach loads for native mode and an ordinary MTU: 16 hexadecimal digits that
// depend on its instructions. It is "" if the program cannot be loaded.
func (d *Datapath) ProgramTag() string {
	tag, err := d.tags.of(oneBuffer)
	if err != nil {
		return ""
	}
	return tag
}

// CountsWireFrames reports whether the kernel loads a program for generic mode that counts the frames of an aggregate.
func (d *Datapath) CountsWireFrames() bool { return d.tags.countsWireFrames() }

// Attached returns one attachment per folder that has counts, also if the link or the interface is gone. Folders without
// counts, which an Attach that was killed leaves, are removed. Folders of versions before 0.1.0 are moved. Pins of other
// programs are left out; Attach returns an error if they are in its way.
//
// It is an error if there are pins of a newer layout: later their counts could not be distinguished from new ones.
func (d *Datapath) Attached() ([]plan.Attachment, error) {
	return listMounted(d, d.listAttached)
}

func (d *Datapath) listAttached() ([]plan.Attachment, error) {
	if err := errors.Join(d.adoptFolders(), d.finishMoves()); err != nil {
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
			if err := d.removeIncomplete(f); err != nil {
				return nil, err
			}
		case errors.Is(err, errForeign):
		case err != nil:
			return nil, err
		default:
			attached = append(attached, a)
		}
	}
	gone := func(id uint32) bool {
		return !slices.ContainsFunc(attached, func(a plan.Attachment) bool { return a.Map == id })
	}
	maps.DeleteFunc(d.mtus, func(id uint32, _ int) bool { return gone(id) })
	maps.DeleteFunc(d.modes, func(id uint32, _ plan.Mode) bool { return gone(id) })
	maps.DeleteFunc(d.switchedOff, func(id uint32, _ []plan.SwitchedOff) bool { return gone(id) })
	return attached, nil
}

// attachment returns the attachment of a folder. The error wraps os.ErrNotExist if the folder has no counts.
func (d *Datapath) attachment(f folder, interfaces []net.Interface) (plan.Attachment, error) {
	a, err := d.pinned(f)
	if err != nil || a.Index == 0 {
		return a, err
	}
	a.SwitchedOff = d.featuresOff(f, a.Map)
	if a.ViaDispatcher {
		a.Outdated, err = d.otherMember(f, a)
		return a, err
	}
	if d.modes[a.Map] == "" {
		if d.modes[a.Map], err = modeOf(a.Index, a.Program); err != nil {
			return a, nil //nolint:nilerr // the interface is being deleted, or another process has detached the link
		}
	}
	other, err := d.otherVersion(f, a.Program, d.modes[a.Map])
	a.Outdated = d.mtuChanged(a, interfaces) || other || f.layout != d.current()
	a.CountsAggregates = d.countsAggregates(f, d.modes[a.Map])
	if then, refused := f.loadFallbackReason(); refused != nil {
		then.Offloads = notLost(then.Offloads, f.loadFeatures(), a.Index)
		a.Improved = then.improved(refused, readDeviceFacts(a.Index))
	}
	return a, err
}

// mtuChanged reports whether the interface's MTU has changed since its program was chosen. If that MTU is not known, the
// present one is stored.
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

// pinned returns the attachment of a folder without Outdated, Improved and SwitchedOff.
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

// Read returns one reading per attachment, also of those whose link or interface is gone: the totals since the map was
// created. Packets are frames at the XDP hook; bytes are counted from the Ethernet header on, without FCS. A frame that is
// being counted at this moment may be in Packets and not yet in Bytes.
//
// If one map cannot be read, Read returns an error and no readings: the map must not look as if it were gone.
func (d *Datapath) Read() ([]traffic.Reading, error) {
	return listMounted(d, d.read)
}

func (d *Datapath) read() ([]traffic.Reading, error) {
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
		if !seen[id] { // detached; the mapping would keep the kernel's memory allocated
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

// root is the folder of the project's pins of all layouts and network namespaces.
func (d *Datapath) root() string {
	return filepath.Join(d.bpffs, "xdp-operator")
}

// versionPins is the folder of one layout.
func (d *Datapath) versionPins(version int) string {
	return filepath.Join(d.root(), "v"+strconv.Itoa(version))
}

// layoutPins is the folder of one layout in this network namespace.
func (d *Datapath) layoutPins(l *layout) string {
	return filepath.Join(d.versionPins(l.version), d.netns)
}

// folder returns the folder of an interface in the current layout.
func (d *Datapath) folder(index int) folder { return d.folderOf(d.current(), index) }

func (d *Datapath) folderOf(l *layout, index int) folder {
	return folder{path: filepath.Join(d.layoutPins(l), strconv.Itoa(index)), layout: l}
}
