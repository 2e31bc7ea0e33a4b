package datapath

import (
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// table is a map's memory as the program writes it (bpf/counter.h).
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
func (l *layout) snapshot(t table, totals *traffic.Totals) {
	for ; len(t) >= 2*l.slots; t = t[2*l.slots:] {
		cpu := t[:2*l.slots]
		for class, slot := range &l.slot {
			totals[class].Packets += atomic.LoadUint64(&cpu[2*slot])
			totals[class].Bytes += atomic.LoadUint64(&cpu[2*slot+1])
		}
	}
}
