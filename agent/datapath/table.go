// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// table is the memory of a map, in the format of bpf/counter.h.
type table []uint64

// mapTable maps the counts into memory, read-only. ebpf.Map.Memory would map them writable.
func mapTable(counts *ebpf.Map) (table, error) {
	memory, err := unix.Mmap(counts.FD(), 0, int(counts.ValueSize()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(memory))), len(memory)/8), nil
}

func (t table) unmap() error {
	return unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(t))), len(t)*8))
}

// snapshot adds the counts of all CPUs to the totals. Each number is loaded atomically, because the program counts at the same
// time; packets and bytes are not loaded together.
func (l *layout) snapshot(t table, totals *traffic.Totals) {
	for ; len(t) >= 2*l.slots; t = t[2*l.slots:] {
		cpu := t[:2*l.slots]
		for class, slot := range &l.slot {
			totals[class].Packets += atomic.LoadUint64(&cpu[2*slot])
			totals[class].Bytes += atomic.LoadUint64(&cpu[2*slot+1])
		}
	}
}
