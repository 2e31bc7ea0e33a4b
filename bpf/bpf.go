// SPDX-License-Identifier: Apache-2.0

// Package bpf embeds the counting program, compiled by clang, and adapts it to the machine.
package bpf

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"weak"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Layout is the version of the layout of the counts (LAYOUT in counter.h). Programs of the same layout can use each other's
// maps.
const Layout = int(counterLayoutLAYOUT)

// The counts (counter.h) are an array: for each possible CPU, Slots pairs of packets and bytes, both uint64 in host order.
// In layout 1 the index of a pair is the value of its traffic.Class.
const (
	Slots       = int(counterSlotSLOTS)
	BytesPerCPU = Slots * 16
)

// The data section of the counts, and the name of its map in the kernel, at most 15 bytes.
const (
	section = ".bss"
	mapName = "xdp_counts"
)

// Spec returns the variants of the program, and its maps, for a machine with the number of possible CPUs
// (PossibleCPUs). Older kernels, including 5.10, reject map values of more than 4 MiB (E2BIG), which is more than 508
// CPUs. With PREEMPT_RT the variants are those that increase counts by atomic instructions (counter.bpf.c says why).
func Spec(cpus int) (*ebpf.CollectionSpec, error) {
	var system unix.Utsname
	if err := unix.Uname(&system); err != nil {
		return nil, fmt.Errorf("read the kernel's version: %w", err)
	}
	return specFor(cpus, isRealtime(unix.ByteSliceToString(system.Version[:])))
}

// isRealtime reports whether a kernel has PREEMPT_RT, by uname's version, for example "#1 SMP PREEMPT_RT Debian 7.3.4-1"
// (init/Makefile, UTS_VERSION). The file /sys/kernel/realtime says the same, but not on all such kernels.
func isRealtime(version string) bool {
	return slices.Contains(strings.Fields(version), "PREEMPT_RT")
}

// realtimeVariants has the variant for PREEMPT_RT of each program.
var realtimeVariants = map[string]string{
	counterProgCountFrame:        counterProgCountFrameRt,
	counterProgCountFrameFrags:   counterProgCountFrameFragsRt,
	counterProgCountFrameGeneric: counterProgCountFrameGenericRt,

	counterProgCountFrameWireKfunc:  counterProgCountFrameWireKfuncRt,
	counterProgCountFrameWireHelper: counterProgCountFrameWireHelperRt,
}

// wirePrograms are those that count the frames of an aggregate.
var wirePrograms = []string{counterProgCountFrameWireKfunc, counterProgCountFrameWireHelper}

func specFor(cpus int, realtime bool) (*ebpf.CollectionSpec, error) {
	spec, err := loadCounter()
	if err != nil {
		return nil, fmt.Errorf("read the program's object: %w", err)
	}
	for name, variant := range realtimeVariants {
		if realtime {
			spec.Programs[name] = spec.Programs[variant]
		}
		delete(spec.Programs, variant)
	}
	for _, program := range spec.Programs {
		want := 1
		if slices.Contains(wirePrograms, program.Name) || slices.ContainsFunc(wirePrograms, func(name string) bool { return realtimeVariants[name] == program.Name }) {
			want = 2 // one for aggregates
		}
		if n := setCPUs(program.Instructions, cpus); n != want {
			return nil, fmt.Errorf("%s has %d comparisons with the number of CPUs instead of %d", program.Name, n, want)
		}
	}
	counts := spec.Maps[section]
	counts.Name = mapName
	counts.ValueSize = uint32(cpus * BytesPerCPU)
	// The library sets this flag only for maps that have the name of a data section.
	counts.Flags |= unix.BPF_F_MMAPABLE
	// The types and the contents of the compiled section no longer match the size. Without contents, loading a program does
	// not write to its map, which would reset the counts.
	counts.Key, counts.Value, counts.Contents = nil, nil, nil
	delete(spec.Variables, counterVarTable)
	return spec, nil
}

// setCPUs replaces the number of CPUs in the instructions, and returns the number of replacements. Loading it from a constant
// instead would cost half a nanosecond per frame.
func setCPUs(code asm.Instructions, cpus int) (replaced int) {
	for i := range code {
		// This is cpu >= CPUS as compiled. The verifier would reject a wrong replacement, because the counts of a larger
		// CPU number are beyond the end of the map.
		if op := code[i].OpCode; op.JumpOp() == asm.JGT && op.Source() == asm.ImmSource && code[i].Constant == int64(counterMachineCPUS)-1 {
			code[i].Constant = int64(cpus) - 1
			replaced++
		}
	}
	return replaced
}

// NewMap creates the map for the counts of one attachment. All counts are zero.
func NewMap(spec *ebpf.CollectionSpec) (*ebpf.Map, error) {
	counts, err := ebpf.NewMap(spec.Maps[section])
	if errors.Is(err, ebpf.ErrNotSupported) {
		// The library returns this error if its feature probe fails for any reason, for example out of memory. Creating a
		// plain map returns the real error.
		plain, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		if err != nil {
			return nil, err
		}
		plain.Close()
	}
	return counts, err
}

// NewProgram loads the program with the map, whose counts are kept. This variant is for native mode, and for frames that fit
// into one buffer. A driver that can receive larger frames rejects it (ERANGE in most drivers). The error wraps
// ebpf.ErrMapIncompatible if the map has another size.
func NewProgram(spec *ebpf.CollectionSpec, counts *ebpf.Map) (*ebpf.Program, error) {
	return newProgram(spec, counts, counterProgCountFrame)
}

// NewFragsProgram is NewProgram for frames of any number of buffers, and therefore of any MTU. It costs a helper call per
// frame. Both variants count in the same way and can replace each other. It requires Linux 5.18 (EINVAL otherwise), and a
// driver that supports fragments.
func NewFragsProgram(spec *ebpf.CollectionSpec, counts *ebpf.Map) (*ebpf.Program, error) {
	return newProgram(spec, counts, counterProgCountFrameFrags)
}

// NewGenericProgram is NewProgram for generic mode, with any MTU, because generic XDP copies each frame into one buffer. It
// does not count copies of the multicast and broadcast packets that the node itself sends, which only generic XDP sees. It
// counts an aggregate of several frames as one packet.
func NewGenericProgram(spec *ebpf.CollectionSpec, counts *ebpf.Map) (*ebpf.Program, error) {
	return newProgram(spec, counts, counterProgCountFrameGeneric)
}

// NewWireKfuncProgram is NewGenericProgram, but counts the frames of an aggregate as they are on the wire. It requires Linux
// 6.2 with BTF, and returns an error otherwise.
func NewWireKfuncProgram(spec *ebpf.CollectionSpec, counts *ebpf.Map) (*ebpf.Program, error) {
	// The library would search the types of all modules for a kfunc that the kernel does not have.
	kernel, err := kernelTypes().Kernel()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types: %w", err)
	}
	if _, err := kernel.AnyTypeByName(castToKernelContext); err != nil {
		return nil, fmt.Errorf("%s: %w", castToKernelContext, ebpf.ErrNotSupported)
	}
	return newProgram(spec, counts, counterProgCountFrameWireKfunc)
}

// NewWireHelperProgram counts as NewWireKfuncProgram does, with more instructions per frame. It requires Linux with BTF, and
// without lockdown=confidentiality, and returns an error otherwise.
func NewWireHelperProgram(spec *ebpf.CollectionSpec, counts *ebpf.Map) (*ebpf.Program, error) {
	return newProgram(spec, counts, counterProgCountFrameWireHelper)
}

// castToKernelContext is the newer one of the kfuncs in wire.h.
const castToKernelContext = "bpf_cast_to_kern_ctx"

// cachedTypes has the kernel's types (BTF), which take the library longer to read than the rest of loading a program. They are
// read for the programs that count the frames of an aggregate, and kept until the next garbage collection, because they take 9 MiB.
var cachedTypes struct {
	sync.Mutex
	weak.Pointer[btf.Cache]
}

func kernelTypes() *btf.Cache {
	cachedTypes.Lock()
	defer cachedTypes.Unlock()
	cache := cachedTypes.Value()
	if cache == nil {
		cache = btf.NewCache()
		cachedTypes.Pointer = weak.Make(cache)
	}
	return cache
}

// A Place is a function of a dispatcher that a program can replace.
type Place struct {
	Dispatcher *ebpf.Program
	Function   string
}

// The names of the programs that can be loaded as extensions.
const (
	Program      = counterProgCountFrame
	FragsProgram = counterProgCountFrameFrags
)

// NewExtension is NewProgram for a program that a dispatcher calls. It requires Linux 5.10 and CAP_SYS_ADMIN.
func NewExtension(spec *ebpf.CollectionSpec, counts *ebpf.Map, place Place) (*ebpf.Program, error) {
	return newProgram(extended(spec, counterProgCountFrame, place), counts, counterProgCountFrame)
}

// NewFragsExtension is NewFragsProgram for a program that a dispatcher calls. The dispatcher can be one for frames of one buffer.
func NewFragsExtension(spec *ebpf.CollectionSpec, counts *ebpf.Map, place Place) (*ebpf.Program, error) {
	return newProgram(extended(spec, counterProgCountFrameFrags, place), counts, counterProgCountFrameFrags)
}

// extended returns the spec with the program changed to an extension for the place.
func extended(spec *ebpf.CollectionSpec, name string, place Place) *ebpf.CollectionSpec {
	spec = spec.Copy()
	program := spec.Programs[name]
	program.Type, program.AttachType = ebpf.Extension, ebpf.AttachNone
	program.AttachTarget, program.AttachTo = place.Dispatcher, place.Function
	program.Flags &^= unix.BPF_F_XDP_HAS_FRAGS // only the dispatcher can have this flag
	return spec
}

func newProgram(spec *ebpf.CollectionSpec, counts *ebpf.Map, name string) (*ebpf.Program, error) {
	// The other variants are removed, because an older kernel would reject the collection.
	spec = spec.Copy()
	spec.Programs = map[string]*ebpf.ProgramSpec{name: spec.Programs[name]}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{section: counts},
		Cache:           kernelTypes(),
	})
	if err != nil {
		return nil, err
	}
	defer collection.Close()
	return collection.DetachProgram(name), nil
}
