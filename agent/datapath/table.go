package datapath

import (
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/bpf"
)

// table is a map's memory as the program writes it: for each possible CPU bpf.Slots pairs of packets and bytes
// (bpf/counter.h).
type table []uint64

// mapTable maps the counts into memory, for reading only: ebpf.Map.Memory would let us write.
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

// snapshot adds the counts of all CPUs to the totals. Each number is loaded whole, since the program is counting
// meanwhile; packets and bytes are not loaded together.
func snapshot(t table, totals *traffic.Totals) {
	for ; len(t) >= 2*bpf.Slots; t = t[2*bpf.Slots:] {
		cpu := t[:2*traffic.NumClasses]
		for class := range totals {
			totals[class].Packets += atomic.LoadUint64(&cpu[2*class])
			totals[class].Bytes += atomic.LoadUint64(&cpu[2*class+1])
		}
	}
}
