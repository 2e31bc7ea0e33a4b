// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cilium/ebpf"
)

// memory is the kernel memory of a program and its maps in bytes.
type memory struct {
	counts      uint64 // the map of the counts
	constants   uint64 // the map of the program's constants
	program     uint64 // its instructions as the verifier left them, and what belongs to them
	machineCode uint64 // which lies in pages that programs share
}

func (m memory) sum() uint64 { return m.counts + m.constants + m.program + m.machineCode }

// measureMemory prints the memory per interface, as computed and as reported by the kernel.
func measureMemory(_ context.Context, out io.Writer, _ effort, _ *ledger) (err error) {
	all, err := loadAll(1, plain, jumbo)
	defer func() { err = errors.Join(err, closeAll(all)) }()
	if err != nil {
		return err
	}
	cpus, err := possibleCPUs()
	if err != nil {
		return err
	}
	size, page := slots*pairBytes*cpus, os.Getpagesize()
	fmt.Fprintf(out, "the counts: %d possible CPUs x %d slots x %d bytes = %d, in whole pages %d\n\n",
		cpus, slots, pairBytes, size, (size+page-1)/page*page)
	fmt.Fprintf(out, "%-24s %8s %10s %8s %13s %8s\n", "bytes, as the kernel says", "counts", "constants", "program", "machine code", "together")
	for _, i := range all {
		m, err := i.memory()
		if err != nil {
			return fmt.Errorf("ask for the memory of %s: %w", i.contender, err)
		}
		fmt.Fprintf(out, "%-25s %8d %10d %8d %13d %8d\n", i.contender, m.counts, m.constants, m.program, m.machineCode, m.sum())
	}
	return nil
}

// memory returns the memory as reported by the kernel. Unknown values are 0.
func (i *instance) memory() (memory, error) {
	var m memory
	info, err := i.program.Info()
	if err != nil {
		return memory{}, err
	}
	m.program, _ = info.Memlock()
	if size, err := info.JitedSize(); err == nil {
		m.machineCode = uint64(size)
	}
	counts, err := i.maps[0].Info()
	if err != nil {
		return memory{}, err
	}
	m.counts, _ = counts.Memlock()
	ids, _ := info.MapIDs()
	for _, id := range ids {
		other, err := ebpf.NewMapFromID(id)
		if err != nil {
			return memory{}, err
		}
		size, isCounts, err := memlock(other, counts)
		if err := errors.Join(err, other.Close()); err != nil {
			return memory{}, err
		}
		if !isCounts {
			m.constants += size
		}
	}
	return m, nil
}

// memlock returns the memory of a map and whether it is the one that is known.
func memlock(m *ebpf.Map, known *ebpf.MapInfo) (size uint64, same bool, err error) {
	info, err := m.Info()
	if err != nil {
		return 0, false, err
	}
	id, _ := info.ID()
	knownID, _ := known.ID()
	size, _ = info.Memlock()
	return size, id == knownID, nil
}
