// Package bpf holds the counting program as an object file made by clang, and makes it fit the machine.
package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Layout is the version of the counts' layout (LAYOUT in counter.h). Programs of one layout can count into each
// other's maps.
const Layout = int(counterLayoutLAYOUT)

// What makes up the counts (counter.h): for each possible CPU Slots pairs of packets and bytes, both uint64 in
// host order. In layout 1 the index of a pair is the value of its traffic.Class.
const (
	Slots       = int(counterSlotSLOTS)
	BytesPerCPU = Slots * 16
)

// The data section of the counts, and what the kernel and bpftool call it: 15 bytes at most.
const (
	section = ".bss"
	mapName = "xdp_counts"
)

// Spec returns the program in its two variants, and its maps, for a machine with that many possible CPUs (ebpf.PossibleCPU). Older
// kernels, 5.10 among them, refuse map values of more than 4 MiB (E2BIG), that is of more than 508 CPUs.
func Spec(cpus int) (*ebpf.CollectionSpec, error) {
	spec, err := loadCounter()
	if err != nil {
		return nil, fmt.Errorf("read the program's object: %w", err)
	}
	for _, program := range spec.Programs {
		if n := setCPUs(program.Instructions, cpus); n != 1 {
			return nil, fmt.Errorf("%s compares the number of the CPU %d times instead of once", program.Name, n)
		}
	}
	counts := spec.Maps[section]
	counts.Name = mapName
	counts.ValueSize = uint32(cpus * BytesPerCPU)
	// Only a map with the name of a data section would get this flag by itself.
	counts.Flags |= unix.BPF_F_MMAPABLE
	// The types and the zeroes of the section as compiled no longer fit. Without contents nothing is written to
	// the map when a program is loaded over it, which would reset the counts.
	counts.Key, counts.Value, counts.Contents = nil, nil, nil
	delete(spec.Variables, counterVarTable)
	return spec, nil
}

// setCPUs puts the number of CPUs in the place of that in the object, and returns in how many. In a constant instead,
// which the program would have to load, it costs half a nanosecond for each frame.
func setCPUs(code asm.Instructions, cpus int) (replaced int) {
	for i := range code {
		// cpu >= CPUS, as the compiler says it. The verifier would refuse a program in which this is wrong: the
		// counts of a CPU beyond the bound lie behind the end of the map.
		if op := code[i].OpCode; op.JumpOp() == asm.JGT && op.Source() == asm.ImmSource && code[i].Constant == int64(counterMachineCPUS)-1 {
			code[i].Constant = int64(cpus) - 1
			replaced++
		}
	}
	return replaced
}

// NewMap makes the map that holds the counts of one attachment, all zero.
func NewMap(spec *ebpf.CollectionSpec) (*ebpf.Map, error) {
	counts, err := ebpf.NewMap(spec.Maps[section])
	if errors.Is(err, ebpf.ErrNotSupported) {
		// The library takes any failure of a probe of its own for a kernel before 5.5, also want of memory. A plain map
		// tells why.
		plain, why := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		if why != nil {
			return nil, why
		}
		plain.Close()
	}
	return counts, err
}

// NewProgram loads the program so that it counts into the map, whose present counts stay. It is for frames that fit
// into one buffer: where a driver may have to hand over more, it refuses to attach it (ERANGE as a rule), and generic
// XDP makes one buffer of them. The error wraps ebpf.ErrMapIncompatible if the map has another size.
func NewProgram(spec *ebpf.CollectionSpec, counts *ebpf.Map) (*ebpf.Program, error) {
	return newProgram(spec, counts, counterProgCountFrame)
}

// NewFragsProgram is NewProgram for frames of any number of buffers, so of any MTU, at the price of a call to the
// kernel per frame. Both count alike and can take each other's place. Needs Linux 5.18 (EINVAL), and a driver that
// knows of fragments.
func NewFragsProgram(spec *ebpf.CollectionSpec, counts *ebpf.Map) (*ebpf.Program, error) {
	return newProgram(spec, counts, counterProgCountFrameFrags)
}

// A Place is a function of a dispatcher that a program can be put into.
type Place struct {
	Dispatcher *ebpf.Program
	Function   string
}

// The names of the functions of the two programs.
const (
	Program      = counterProgCountFrame
	FragsProgram = counterProgCountFrameFrags
)

// NewExtension is NewProgram for a program that a dispatcher calls. Needs Linux 5.10 and CAP_SYS_ADMIN.
func NewExtension(spec *ebpf.CollectionSpec, counts *ebpf.Map, place Place) (*ebpf.Program, error) {
	return newProgram(extended(spec, counterProgCountFrame, place), counts, counterProgCountFrame)
}

// NewFragsExtension is NewFragsProgram for a program that a dispatcher calls. It may be one for frames of one buffer.
func NewFragsExtension(spec *ebpf.CollectionSpec, counts *ebpf.Map, place Place) (*ebpf.Program, error) {
	return newProgram(extended(spec, counterProgCountFrameFrags, place), counts, counterProgCountFrameFrags)
}

// extended makes a program of the spec one for a place.
func extended(spec *ebpf.CollectionSpec, name string, place Place) *ebpf.CollectionSpec {
	spec = spec.Copy()
	program := spec.Programs[name]
	program.Type, program.AttachType = ebpf.Extension, ebpf.AttachNone
	program.AttachTarget, program.AttachTo = place.Dispatcher, place.Function
	program.Flags &^= unix.BPF_F_XDP_HAS_FRAGS // which only the dispatcher may say
	return spec
}

func newProgram(spec *ebpf.CollectionSpec, counts *ebpf.Map, name string) (*ebpf.Program, error) {
	// The other one is not even tried: an older kernel would refuse both.
	spec = spec.Copy()
	spec.Programs = map[string]*ebpf.ProgramSpec{name: spec.Programs[name]}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{section: counts},
	})
	if err != nil {
		return nil, err
	}
	defer collection.Close()
	return collection.DetachProgram(name), nil
}
