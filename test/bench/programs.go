// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/bpf" //nolint:depguard // the program itself is what is measured
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// What one interface's counts are made of: slots for each possible CPU, pairs of packets and bytes.
const (
	slots     = bpf.Slots
	pairBytes = bpf.BytesPerCPU / bpf.Slots
)

// contender is one of the programs that are measured, and an index into arrays of them.
type contender int

const (
	empty      contender = iota // the floor
	xdp1                        // the baseline
	limit                       // what no counter of packets and bytes can beat
	plain                       // ours, as attached where frames fit into one buffer
	jumbo                       // ours, as attached where they do not
	generic                     // ours, as attached in generic mode where no frames of aggregates can be counted
	wireKfunc                   // ours, as attached in generic mode: counts the frames of aggregates, which it reads by kfuncs
	wireHelper                  // the same by a helper, on kernels before 6.2
	contenders
)

var contenderNames = [contenders]string{
	"empty", "xdp1", "limit", "ours", "ours, jumbo MTU",
	"ours, aggregates as one", "ours, wire by kfuncs", "ours, wire by helper",
}

func (c contender) String() string { return contenderNames[c] }

// tally is what a program has counted, without the zeroes, by its own keys: IP protocols of xdp1, which counts no
// bytes, classes of ours, 0 of the limit.
type tally map[uint32]traffic.Counts

// expected returns what the program must have counted of a frame that came n times.
func (c contender) expected(f frames.Frame, n uint64) tally {
	counts := traffic.Counts{Packets: n, Bytes: n * uint64(len(f.Data))}
	switch c {
	case xdp1:
		// Frames that name no protocol or another than the last one are not sent to it.
		return tally{uint32(f.Class) % 256: {Packets: n}}
	case limit:
		return tally{0: counts}
	case plain, jumbo, generic, wireKfunc, wireHelper:
		return tally{uint32(f.Class): counts}
	default:
		return tally{}
	}
}

// instance is a program, loaded with maps of its own. Each time its machine code lies elsewhere.
type instance struct {
	contender
	program *ebpf.Program
	maps    []*ebpf.Map // what it counts into comes first; none of the empty program
}

// load loads a program once more.
func load(c contender) (*instance, error) {
	i, err := loadInstance(c)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", c, err)
	}
	return i, nil
}

func loadInstance(c contender) (*instance, error) {
	switch c {
	case plain:
		return loadOurs(c, bpf.NewProgram)
	case jumbo:
		return loadOurs(c, bpf.NewFragsProgram)
	case generic:
		return loadOurs(c, bpf.NewGenericProgram)
	case wireKfunc:
		return loadOurs(c, bpf.NewWireKfuncProgram)
	case wireHelper:
		return loadOurs(c, bpf.NewWireHelperProgram)
	case xdp1:
		return loadBaselineProgram(c, baselineProgXdp1, baselineMapXdp1Packets)
	case limit:
		return loadBaselineProgram(c, baselineProgLimit, ".bss")
	default:
		return loadBaselineProgram(c, baselineProgEmpty, "")
	}
}

// possibleCPUs returns the number of CPUs for which the counting program has tables.
func possibleCPUs() (int, error) { return bpf.PossibleCPUs() }

// loadOurs loads the counting program as the datapath does.
func loadOurs(c contender, newProgram func(*ebpf.CollectionSpec, *ebpf.Map) (*ebpf.Program, error)) (*instance, error) {
	cpus, err := possibleCPUs()
	if err != nil {
		return nil, err
	}
	spec, err := bpf.Spec(cpus)
	if err != nil {
		return nil, err
	}
	counts, err := bpf.NewMap(spec)
	if err != nil {
		return nil, err
	}
	program, err := newProgram(spec, counts)
	if err != nil {
		return nil, errors.Join(err, counts.Close())
	}
	return &instance{contender: c, program: program, maps: []*ebpf.Map{counts}}, nil
}

// loadBaselineProgram loads one program of baseline.bpf.c with the map that it counts into.
func loadBaselineProgram(c contender, name, counts string) (*instance, error) {
	spec, err := loadBaseline()
	if err != nil {
		return nil, err
	}
	spec.Programs = map[string]*ebpf.ProgramSpec{name: spec.Programs[name]}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, err
	}
	defer collection.Close()
	i := &instance{contender: c, program: collection.DetachProgram(name)}
	if counts != "" {
		i.maps = append(i.maps, collection.DetachMap(counts))
	}
	return i, nil
}

// loadSend loads the program that sends live frames out of an interface.
func loadSend(ifindex int) (*ebpf.Program, error) {
	spec, err := loadBaseline()
	if err != nil {
		return nil, err
	}
	if err := spec.Variables[baselineVarSender].Set(uint32(ifindex)); err != nil {
		return nil, err
	}
	spec.Programs = map[string]*ebpf.ProgramSpec{baselineProgSend: spec.Programs[baselineProgSend]}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, err
	}
	defer collection.Close()
	return collection.DetachProgram(baselineProgSend), nil
}

func (i *instance) close() error {
	errs := []error{i.program.Close()}
	for _, m := range i.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// counted returns what the program has counted since it was loaded.
func (i *instance) counted() (tally, error) {
	switch i.contender {
	case xdp1:
		return readXDP1(i.maps[0])
	case limit:
		return readPairs(i.maps[0], 1)
	case plain, jumbo, generic, wireKfunc, wireHelper:
		return readPairs(i.maps[0], slots)
	default:
		return tally{}, nil
	}
}

// readXDP1 adds up a per-CPU array.
func readXDP1(packets *ebpf.Map) (tally, error) {
	t := tally{}
	var key uint32
	var each []uint64
	for entries := packets.Iterate(); ; {
		more := entries.Next(&key, &each)
		if !more {
			return t, entries.Err()
		}
		for _, n := range each {
			t.add(key, traffic.Counts{Packets: n})
		}
	}
}

// readPairs adds up a data section of pairs of packets and bytes, so many for each CPU.
func readPairs(section *ebpf.Map, perCPU int) (tally, error) {
	var data []byte
	if err := section.Lookup(uint32(0), &data); err != nil {
		return nil, err
	}
	t := tally{}
	for pair := 0; len(data) >= pairBytes; pair++ {
		t.add(uint32(pair%perCPU), traffic.Counts{
			Packets: binary.NativeEndian.Uint64(data),
			Bytes:   binary.NativeEndian.Uint64(data[8:]),
		})
		data = data[pairBytes:]
	}
	return t, nil
}

func (t tally) add(key uint32, c traffic.Counts) {
	if !c.IsZero() {
		t[key] = t[key].Plus(c)
	}
}
