// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// pass is XDP_PASS of include/uapi/linux/bpf.h.
const pass = 2

// minFrame is the length of the shortest frame that BPF_PROG_TEST_RUN accepts: an Ethernet header.
const minFrame = 14

// variant is one of the programs in the object file.
type variant struct {
	name string
	load func(*ebpf.CollectionSpec, *ebpf.Map) (*ebpf.Program, error)

	// helpers lists the helpers that the program is allowed to call. All return a number and have no side effects.
	helpers []asm.BuiltinFunc

	// kfuncs lists the functions of the kernel, other than helpers, that it is allowed to call. They change the type of a pointer.
	kfuncs []string

	realtime bool // for PREEMPT_RT
}

func (v variant) String() string {
	if v.realtime {
		return realtimeVariants[v.name]
	}
	return v.name
}

// spec returns the programs for this machine's CPUs.
// seesOwnPackets reports whether the variant is for generic mode, where packets are seen that the node sends.
func (v variant) seesOwnPackets() bool {
	return v.name == generic.name || slices.Contains(wirePrograms, v.name)
}

func (v variant) spec(t testing.TB) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := specFor(ebpf.MustPossibleCPU(), v.realtime)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

var (
	ordinary = variant{name: counterProgCountFrame, load: NewProgram, helpers: []asm.BuiltinFunc{asm.FnGetSmpProcessorId}}
	frags    = variant{name: counterProgCountFrameFrags, load: NewFragsProgram, helpers: []asm.BuiltinFunc{asm.FnGetSmpProcessorId, asm.FnXdpGetBuffLen}}
	byKfunc  = variant{
		name: counterProgCountFrameWireKfunc, load: NewWireKfuncProgram, helpers: []asm.BuiltinFunc{asm.FnGetSmpProcessorId},
		kfuncs: []string{"bpf_cast_to_kern_ctx", "bpf_rdonly_cast"},
	}
	byHelper = variant{
		name: counterProgCountFrameWireHelper, load: NewWireHelperProgram,
		helpers: []asm.BuiltinFunc{asm.FnGetSmpProcessorId, asm.FnProbeReadKernel},
	}
	generic = variant{name: counterProgCountFrameGeneric, load: NewGenericProgram, helpers: []asm.BuiltinFunc{asm.FnGetSmpProcessorId}}
)

// variants returns the variants that this kernel can load. They must behave in the same way, except that generic does not
// count the packets that classify.SentByNode recognizes.
func variants(t testing.TB) []variant {
	t.Helper()
	known := []variant{ordinary, generic}
	if supportsFragments(t) {
		known = append(known, frags)
	}
	for _, v := range []variant{byKfunc, byHelper} {
		if canLoad(t, v) {
			known = append(known, v)
		}
	}
	for _, v := range known {
		v.realtime = true
		known = append(known, v)
	}
	return known
}

// supportsFragments reports whether the kernel loads a minimal program for frames of many buffers (Linux 5.18). If it does
// not, it must reject the frags variant with EINVAL.
// canLoad reports whether the kernel loads a variant that not every kernel loads.
func canLoad(t testing.TB, v variant) bool {
	t.Helper()
	spec := v.spec(t)
	counts, err := NewMap(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer counts.Close()
	program, err := v.load(spec, counts)
	if err != nil {
		t.Logf("%s: %v", v, err)
		if os.Getenv(report.Guest) != "" && v.name == byHelper.name {
			t.Fatal(explained(err)) // all kernels of command kernels have BTF
		}
		return false
	}
	program.Close()
	return true
}

func supportsFragments(t testing.TB) bool {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, Flags: unix.BPF_F_XDP_HAS_FRAGS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()},
	})
	switch {
	case err == nil:
		program.Close()
		return true
	case errors.Is(err, os.ErrPermission):
		t.Fatalf("this test needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: %v", err)
	case !errors.Is(err, unix.EINVAL):
		t.Fatal(err)
	}
	spec, err := Spec(1)
	if err != nil {
		t.Fatal(err)
	}
	counts, err := NewMap(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer counts.Close()
	if program, err := NewFragsProgram(spec, counts); !errors.Is(err, unix.EINVAL) {
		program.Close()
		t.Fatalf("a kernel without xdp.frags loads %s: %v", frags.name, err)
	}
	return false
}

// eachVariant runs the test with each variant.
func eachVariant(t *testing.T, test func(t *testing.T, c *counter)) {
	t.Helper()
	for _, v := range variants(t) {
		t.Run(v.String(), func(t *testing.T) { test(t, load(t, v)) })
	}
}

// counter is a loaded program with a copy of its table.
type counter struct {
	program *ebpf.Program
	wire    bool // it counts the frames of aggregates
	memory  *ebpf.Memory
	table   []byte // copy after the last run
	next    []byte
	out     []byte
}

// machineSpec returns the spec for this machine.
func machineSpec(t testing.TB) *ebpf.CollectionSpec {
	t.Helper()
	cpus, err := PossibleCPUs()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := Spec(cpus)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// load loads a variant.
func load(t testing.TB, v variant) *counter {
	t.Helper()
	// Kernels before 5.11 charge maps to the limit of locked memory. If raising it fails, the limit can still be sufficient.
	_ = rlimit.RemoveMemlock()
	spec := v.spec(t)
	counts, err := NewMap(spec)
	if errors.Is(err, os.ErrPermission) {
		t.Fatalf("this test needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { counts.Close() })
	program, err := v.load(spec, counts)
	if err != nil {
		t.Fatal(explained(err))
	}
	t.Cleanup(func() { program.Close() })
	memory, err := counts.Memory()
	if err != nil {
		t.Fatal(err)
	}
	size := int(memory.Size())
	return &counter{program: program, wire: slices.Contains(wirePrograms, v.name), memory: memory, table: make([]byte, size), next: make([]byte, size), out: make([]byte, 4096)}
}

// explained returns the error with the complete log of the verifier.
func explained(err error) string {
	if verifier, ok := errors.AsType[*ebpf.VerifierError](err); ok {
		return fmt.Sprintf("%+v", verifier)
	}
	return err.Error()
}

// growth is what a run has added to a slot of one CPU.
type growth struct{ Slot, Packets, Bytes uint64 }

// expect runs the program once and compares verdict, frame and every slot of every CPU.
func (c *counter) expect(t *testing.T, f frames.Frame) {
	t.Helper()
	if diff := cmp.Diff([]growth{{uint64(f.Class), 1, uint64(len(f.Data))}}, c.grown(t, f)); diff != "" {
		t.Errorf("%s: not counted as %s (-want +got):\n%s", f.Name, f.Class, diff)
	}
}

// grown runs the program once, compares verdict and frame, and returns which slots have grown.
func (c *counter) grown(t *testing.T, f frames.Frame) (got []growth) {
	t.Helper()
	run := ebpf.RunOptions{Data: f.Data, DataOut: c.out}
	verdict, err := c.program.Run(&run)
	if err != nil {
		t.Fatalf("%s: %v", f.Name, err)
	}
	if verdict != pass {
		t.Errorf("%s: verdict %d", f.Name, verdict)
	}
	if !bytes.Equal(run.DataOut, f.Data) {
		t.Errorf("%s: the frame was changed:\n%s", f.Name, cmp.Diff(f.Data, run.DataOut))
	}
	if _, err := c.memory.ReadAt(c.next, 0); err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(c.next); at += 16 {
		if bytes.Equal(c.next[at:at+16], c.table[at:at+16]) {
			continue
		}
		grown := func(at int) uint64 {
			return binary.NativeEndian.Uint64(c.next[at:]) - binary.NativeEndian.Uint64(c.table[at:])
		}
		got = append(got, growth{uint64(at % BytesPerCPU / 16), grown(at), grown(at + 8)})
	}
	c.table, c.next = c.next, c.table
	return got
}

func TestCountEveryFrame(t *testing.T) {
	eachVariant(t, func(t *testing.T, c *counter) {
		for _, f := range frames.All() {
			c.expect(t, f)
		}
	})
}

func TestCountTruncatedFrames(t *testing.T) {
	eachVariant(t, func(t *testing.T, c *counter) {
		last := len(frames.All()) - len(frames.Protocols()) // which differ only in the protocol number
		for _, f := range frames.All()[:last] {
			// The program does not read the payload, so a few bytes of it are sufficient.
			end := min(len(f.Data), f.Cuts[len(f.Cuts)-1]+20)
			for n := minFrame; n < end; n++ {
				if !testing.Short() || isNear(n, f.Cuts) {
					c.expect(t, f.Cut(n))
				}
			}
		}
	})
}

func isNear(n int, cuts []int) bool {
	return slices.ContainsFunc(cuts, func(cut int) bool { return cut-1 <= n && n <= cut+1 })
}

// The length of a frame of many buffers is that of all buffers. Its headers are in the first one.
func TestCountFrameOfManyBuffers(t *testing.T) {
	if !supportsFragments(t) {
		return // supportsFragments has checked the error
	}
	c := load(t, frags)
	c.out = make([]byte, 16384)
	for _, f := range frames.Common() {
		f.Data = append(bytes.Clone(f.Data), make([]byte, 9000)...) // BPF_PROG_TEST_RUN splits frames that are longer than a page
		c.expect(t, f)
	}
}

func TestVerifierComplexity(t *testing.T) {
	eachVariant(t, func(t *testing.T, c *counter) {
		info, err := c.program.Info()
		if err != nil {
			t.Fatal(err)
		}
		// The limit of the kernel is one million. Verifiers prune differently, that of Linux 7.3 half as often as others, so the
		// program must stay far below it.
		if n, ok := info.VerifiedInstructions(); ok {
			t.Logf("%d instructions verified", n)
			limit := uint32(40_000)
			if c.wire {
				limit = 200_000 // a second parser, for the headers of aggregates
			}
			if n > limit {
				t.Errorf("the verifier processed %d instructions, more than %d", n, limit)
			}
		}
	})
}

func TestSlotsMatchClasses(t *testing.T) {
	spec, err := Spec(1)
	if err != nil {
		t.Fatal(err)
	}
	var slot *btf.Enum
	if err := spec.Types.TypeByName("slot", &slot); err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, v := range slot.Values {
		got[v.Name] = v.Value
	}
	want := map[string]uint64{
		"SLOT_IPV4":      uint64(traffic.IP(traffic.IPv4, 0)),
		"SLOT_IPV6":      uint64(traffic.IP(traffic.IPv6, 0)),
		"SLOT_ARP":       uint64(traffic.ClassARP),
		"SLOT_OTHER":     uint64(traffic.ClassOther),
		"SLOT_MALFORMED": uint64(traffic.ClassMalformed),
		"SLOTS":          traffic.NumClasses + 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("enum slot of counter.h (-want +got):\n%s", diff)
	}
	if BytesPerCPU%64 != 0 {
		t.Errorf("%d bytes per CPU: two CPUs share a cache line", BytesPerCPU)
	}
	var count *btf.Struct
	if err := spec.Types.TypeByName("count", &count); err != nil {
		t.Fatal(err)
	}
	if int(count.Size)*Slots != BytesPerCPU || count.Members[0].Name != "packets" || count.Members[1].Name != "bytes" {
		t.Errorf("struct count is %v, which is not what the reader expects", count)
	}
}

func TestNewProgramKeepsCounts(t *testing.T) {
	spec := machineSpec(t)
	counts, err := NewMap(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer counts.Close()
	var total uint64
	f := frames.Common()[0]
	known := variants(t)
	for _, v := range append(known, known[0]) {
		program, err := v.load(v.spec(t), counts)
		if err != nil {
			t.Fatal(explained(err))
		}
		if _, err := program.Run(&ebpf.RunOptions{Data: f.Data}); err != nil {
			t.Fatal(err)
		}
		if err := program.Close(); err != nil {
			t.Fatal(err)
		}
		var table []byte
		if err := counts.Lookup(uint32(0), &table); err != nil {
			t.Fatal(err)
		}
		var packets uint64
		for at := int(f.Class) * 16; at < len(table); at += BytesPerCPU {
			packets += binary.NativeEndian.Uint64(table[at:])
		}
		if total++; packets != total {
			t.Fatalf("%d packets after %d programs with one each", packets, total)
		}
	}
}

func TestSpecForNumberOfCPUs(t *testing.T) {
	for _, cpus := range []int{1, 2, 129, 508} {
		spec, err := Spec(cpus)
		if err != nil {
			t.Fatal(err)
		}
		counts, err := NewMap(spec)
		if err != nil {
			t.Fatalf("map for %d CPUs: %v", cpus, err)
		}
		for _, v := range variants(t) {
			spec, err := specFor(cpus, v.realtime)
			if err != nil {
				t.Fatal(err)
			}
			program, err := v.load(spec, counts)
			if err != nil {
				t.Errorf("%s for %d CPUs: %s", v, cpus, explained(err))
			} else {
				program.Close()
			}
		}
		counts.Close()
	}
}
