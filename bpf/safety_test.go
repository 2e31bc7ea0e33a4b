// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// These tests prove the safety of the program from its instructions. They follow the content of every register on every
// path, and check what the program returns, through which pointers it writes, and what it calls. That pointers stay within
// their bounds is proven by the verifier of the kernel.
//
// The instructions are checked twice: as they are passed to the kernel, where helpers have their numbers, and as the kernel
// has rewritten them (xlated), which is what runs.

// loaded is a program in the kernel with its map of counts, and the findings about its instructions before and after rewriting.
type loaded struct {
	program       *ebpf.Program
	given, xlated *finding
}

// inspect loads one of the programs in spec and analyses it.
func inspect(t *testing.T, spec *ebpf.CollectionSpec, v variant) loaded {
	t.Helper()
	counts, err := NewMap(spec)
	if err != nil {
		t.Fatalf("make a map (needs root): %v", err)
	}
	t.Cleanup(func() { counts.Close() })
	given, err := analyse(spec.Programs[v.name].Instructions, func(ins asm.Instruction) bool {
		return ins.Reference() == section || ins.Reference() == counterVarTable
	}, v.helpers, v.kfuncs)
	if err != nil {
		t.Fatalf("before rewriting: %v", err)
	}

	spec = spec.Copy()
	spec.Programs = map[string]*ebpf.ProgramSpec{v.name: spec.Programs[v.name]} // an older kernel rejects the others
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{section: counts},
		Programs:        ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats},
	})
	if err != nil {
		t.Fatal(explained(err))
	}
	t.Cleanup(collection.Close)
	program := collection.Programs[v.name]
	info, err := program.Info()
	if err != nil {
		t.Fatal(err)
	}
	code, err := info.Instructions()
	if err != nil {
		t.Fatalf("read the instructions back (needs root, and net.core.bpf_jit_harden=0): %v", err)
	}
	countsInfo, err := counts.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := countsInfo.ID()
	xlated, err := analyse(code, func(ins asm.Instruction) bool {
		return uint32(ins.Constant) == uint32(id) // include/uapi/linux/bpf.h, BPF_PSEUDO_MAP_VALUE: the low half
	}, nil, nil)
	if err != nil {
		t.Fatalf("after rewriting: %v\n%v", err, code)
	}
	return loaded{program: program, given: given, xlated: xlated}
}

func TestProgramSafety(t *testing.T) {
	for _, v := range variants(t) {
		t.Run(v.String(), func(t *testing.T) { checkSafety(t, v) })
	}
}

// R6 to R9 are callee-saved: a program that uses one saves and restores it for every frame. The variant for many buffers
// needs them, because its helper call can overwrite the others, and so do those that count the frames of an aggregate.
func TestNoCalleeSavedRegisters(t *testing.T) {
	for _, v := range variants(t) {
		if v.name == frags.name || slices.Contains(wirePrograms, v.name) {
			continue
		}
		code := v.spec(t).Programs[v.name].Instructions
		if len(code) == 0 {
			t.Fatalf("%s has no instructions", v)
		}
		for i, ins := range code {
			for _, r := range []asm.Register{ins.Dst, ins.Src} {
				if r >= asm.R6 && r <= asm.R9 {
					t.Errorf("%s: instruction %d, %v, uses %v", v, i, ins, r)
				}
			}
		}
	}
}

func sum(calls map[asm.BuiltinFunc]int) (n int) {
	for _, c := range calls {
		n += c
	}
	return n
}

// Programs that the kernel accepts, but the analysis must reject.
func TestAnalysisRejectsUnsafePrograms(t *testing.T) {
	// The prologue of all programs: r6 = ctx, r7 = data, r8 = data_end, and the frame has 14 bytes.
	begin := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1).WithSymbol(counterProgCountFrame),
		asm.LoadMem(asm.R7, asm.R1, 0, asm.Word),
		asm.LoadMem(asm.R8, asm.R1, 4, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Add.Imm(asm.R2, 14),
		asm.JGT.Reg(asm.R2, asm.R8, "pass"),
	}
	end := asm.Instructions{
		asm.Mov.Imm(asm.R0, pass).WithSymbol("pass"),
		asm.Return(),
	}
	counts := asm.LoadMapValue(asm.R3, 0, 0).WithReference(section)
	function := func(body ...asm.Instruction) asm.Instructions {
		body[0] = body[0].WithSymbol("function")
		return body
	}
	for name, tc := range map[string]struct {
		body, after asm.Instructions
		want        string // empty for a safe program
		givenOnly   bool   // the violation cannot be found after rewriting, without the numbers of helpers

		needsFragments bool // the helper requires Linux 5.18
	}{
		"safe": {
			body: asm.Instructions{
				asm.FnGetSmpProcessorId.Call(),
				counts,
				asm.StoreImm(asm.R3, 0, 1, asm.Word),
				asm.StoreMem(asm.RFP, -8, asm.R3, asm.DWord),
				asm.LoadMem(asm.R4, asm.RFP, -8, asm.DWord),
				asm.StoreMem(asm.R4, 8, asm.R0, asm.DWord),
				asm.Mov.Reg(asm.R1, asm.R6),
				asm.Call.Label("function"),
				asm.Return(),
			},
			after: function(asm.Mov.Imm(asm.R0, pass), asm.Return()),
		},
		"drops": {
			body: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
			want: "returns something else than XDP_PASS",
		},
		"drops on one of two paths": {
			body: asm.Instructions{
				asm.Mov.Imm(asm.R0, pass),
				asm.LoadMem(asm.R1, asm.R7, 0, asm.Byte),
				asm.JNE.Imm(asm.R1, 7, "out"),
				asm.Mov.Imm(asm.R0, 1),
				asm.Return().WithSymbol("out"),
			},
			want: "returns something else than XDP_PASS",
		},
		"returns a byte of the frame": {
			body: asm.Instructions{asm.LoadMem(asm.R0, asm.R7, 0, asm.Byte), asm.Return()},
			want: "returns something else than XDP_PASS",
		},
		"subprogram drops": {
			body:  asm.Instructions{asm.Mov.Reg(asm.R1, asm.R6), asm.Call.Label("function"), asm.Return()},
			after: function(asm.Mov.Imm(asm.R0, 1), asm.Return()),
			want:  "returns something else than XDP_PASS",
		},
		"writes into the packet": {
			body: asm.Instructions{asm.StoreImm(asm.R7, 0, 0, asm.Byte)},
			want: "writes into the packet",
		},
		"writes into the packet through a pointer on the stack": {
			body: asm.Instructions{
				asm.StoreMem(asm.RFP, -8, asm.R7, asm.DWord),
				asm.LoadMem(asm.R3, asm.RFP, -8, asm.DWord),
				asm.StoreImm(asm.R3, 4, 0, asm.Word),
			},
			want: "writes into the packet",
		},
		"writes into the packet or into the counts": {
			body: asm.Instructions{
				counts,
				asm.LoadMem(asm.R1, asm.R7, 0, asm.Byte),
				asm.JNE.Imm(asm.R1, 7, "write"),
				asm.Mov.Reg(asm.R3, asm.R7),
				asm.StoreImm(asm.R3, 0, 0, asm.Byte).WithSymbol("write"),
			},
			want: "writes to an unknown address",
		},
		"subprogram writes into the packet": {
			body: asm.Instructions{asm.Mov.Reg(asm.R1, asm.R6), asm.Call.Label("function"), asm.Return()},
			after: function(
				asm.LoadMem(asm.R2, asm.R1, 0, asm.Word),
				asm.LoadMem(asm.R3, asm.R1, 4, asm.Word),
				asm.Mov.Imm(asm.R0, pass),
				asm.Mov.Reg(asm.R4, asm.R2),
				asm.Add.Imm(asm.R4, 1),
				asm.JGT.Reg(asm.R4, asm.R3, "back"),
				asm.StoreImm(asm.R2, 0, 0, asm.Byte),
				asm.Return().WithSymbol("back"),
			),
			want: "writes into the packet",
		},
		"reads the time": {
			body:      asm.Instructions{asm.FnKtimeGetNs.Call()},
			want:      "calls a helper that is not in the list",
			givenOnly: true,
		},
		"moves the head of the packet": {
			body:      asm.Instructions{asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, 4), asm.FnXdpAdjustHead.Call()},
			want:      "calls a helper that is not in the list",
			givenOnly: true,
		},
		"calls a helper that only the other variant is allowed to call": {
			body:      asm.Instructions{asm.Mov.Reg(asm.R1, asm.R6), asm.FnXdpGetBuffLen.Call()},
			want:      "calls a helper that is not in the list",
			givenOnly: true,

			needsFragments: true,
		},
		"subprogram redirects": {
			body: asm.Instructions{asm.Mov.Reg(asm.R1, asm.R6), asm.Call.Label("function"), asm.Mov.Imm(asm.R0, pass), asm.Return()},
			after: function(
				asm.Mov.Imm(asm.R1, 1), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return(),
			),
			want:      "calls a helper that is not in the list",
			givenOnly: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			spec := machineSpec(t)
			spec.Programs[counterProgCountFrame].Instructions = slices.Concat(begin, tc.body, end, tc.after)
			if tc.needsFragments && !supportsFragments(t) {
				if counts, err := NewMap(spec); err != nil {
					t.Error(err)
				} else if _, err := NewProgram(spec, counts); err == nil {
					t.Error("the kernel has no such helper, and loads it")
				}
				return
			}
			l := inspect(t, spec, ordinary)
			expect := func(what string, f *finding) {
				t.Helper()
				if tc.want == "" && len(f.violations) > 0 {
					t.Errorf("%s: %v", what, f.violations)
				}
				if tc.want != "" && !slices.ContainsFunc(f.violations, func(v string) bool { return strings.Contains(v, tc.want) }) {
					t.Errorf("%s: no violation %q; found: %q", what, tc.want, f.violations)
				}
			}
			expect("before rewriting", l.given)
			if !tc.givenOnly {
				expect("after rewriting", l.xlated)
			}
		})
	}
}

func checkSafety(t *testing.T, v variant) {
	t.Helper()
	l := inspect(t, v.spec(t), v)
	for what, f := range map[string]*finding{"before rewriting": l.given, "after rewriting": l.xlated} {
		for _, v := range f.violations {
			t.Errorf("%s: %s", what, v)
		}
		t.Logf("%s: %d instructions in %d functions, %d exits, %d stores, stack of %d bytes, helpers called: %v",
			what, f.instructions, f.functions, f.exits, f.stores, f.depth, f.calls)
		if f.exits == 0 || f.stores == 0 {
			t.Errorf("%s: %d exits and %d stores: this is not the program", what, f.exits, f.stores)
		}
		// With PREEMPT_RT another run on the same CPU can come between a load and a store. Otherwise atomic additions would be
		// a waste.
		if v.realtime && f.plain != 0 || !v.realtime && f.plain == 0 {
			t.Errorf("%s: %d stores to the counts are not atomic", what, f.plain)
		}
		if f.depth > 80 {
			t.Errorf("%s: %d bytes of stack", what, f.depth)
		}
	}
	// The kernel can inline helpers, but must not add calls.
	if before, after := sum(l.given.calls), sum(l.xlated.calls); after > before {
		t.Errorf("%d helper calls before rewriting, and %d after", before, after)
	}
	for line := range strings.SplitSeq(l.program.VerifierLog, "\n") {
		if line != "" {
			t.Logf("verifier: %s", line)
		}
	}
	info, err := l.program.Info()
	if err != nil {
		t.Fatal(err)
	}
	if size, err := info.JitedSize(); err == nil {
		t.Logf("%d bytes of machine code", size)
	}
	if maps, ok := info.MapIDs(); ok && len(maps) != 1 {
		t.Errorf("the program uses %d maps instead of one", len(maps))
	}
}
