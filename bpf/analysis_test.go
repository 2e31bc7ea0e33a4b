// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf/asm"
)

// kind is the kind of content of a register.
type kind uint8

const (
	unknown   kind = iota // any of the kinds below
	unset                 // undefined after a call
	scalar                // a number
	constant              // the number n
	context               // the pointer to xdp_md, or to xdp_buff after rewriting
	packet                // a pointer into the frame, or any other value loaded from the context
	countsPtr             // a pointer into the map of counts
	otherMap              // a pointer to or into another map
	stack                 // a pointer to offset n from the frame pointer
)

type value struct {
	kind kind
	n    int64
}

func (v value) isNumber() bool { return v.kind == scalar || v.kind == constant }

// join returns a value that includes both.
func (v value) join(w value) value {
	switch {
	case v == w:
		return v
	case v.isNumber() && w.isNumber():
		return value{kind: scalar}
	default:
		return value{kind: unknown}
	}
}

// machine is the content of registers and stack before an instruction.
type machine struct {
	registers [11]value
	slots     map[int64]value // of 8 bytes, by offset from the frame pointer
}

// join returns a machine that includes both, and whether it differs from m.
func (m machine) join(other machine) (machine, bool) {
	joined := machine{slots: map[int64]value{}}
	for r := range m.registers {
		joined.registers[r] = m.registers[r].join(other.registers[r])
	}
	for at, v := range m.slots {
		if w, ok := other.slots[at]; ok {
			joined.slots[at] = v.join(w)
		}
	}
	return joined, joined.registers != m.registers || !maps.Equal(joined.slots, m.slots)
}

// finding is the result of an analysis.
type finding struct {
	instructions int // raw instructions of 8 bytes
	functions    int
	exits        int // of the main program, without subprograms
	stores       int
	plain        int   // stores to the counts that are not atomic
	depth        int64 // of the stack, of the deepest chain of calls
	calls        map[asm.BuiltinFunc]int
	violations   []string
}

// analysis follows the instructions of a program until the machines no longer change.
type analysis struct {
	code     asm.Instructions
	isCounts func(asm.Instruction) bool // whether a map load is of the map of counts
	helpers  []asm.BuiltinFunc          // allowed helpers; nil allows any, because they have no numbers after rewriting
	kfuncs   []string                   // allowed functions of the kernel that are no helpers

	offset  []int       // raw offset of each instruction
	index   map[int]int // the inverse of offset
	symbols map[string]int
	before  map[int]machine
	owner   map[int]int   // first instruction of the function of each instruction
	returns map[int]value // of each function
	callers map[int]map[int]bool
	todo    []int
	// violations by instruction, of its last visit.
	found map[int][]string
}

// analyse follows the program from its first instruction. It returns an error for instructions that it does not know.
func analyse(code asm.Instructions, isCounts func(asm.Instruction) bool, helpers []asm.BuiltinFunc, kfuncs []string) (f *finding, err error) {
	a := &analysis{
		code: code, isCounts: isCounts, helpers: helpers, kfuncs: kfuncs,
		index: map[int]int{}, symbols: map[string]int{}, before: map[int]machine{}, owner: map[int]int{},
		returns: map[int]value{}, callers: map[int]map[int]bool{}, found: map[int][]string{},
	}
	at := 0
	for i, ins := range code {
		a.offset, a.index[at] = append(a.offset, at), i
		if s := ins.Symbol(); s != "" {
			a.symbols[s] = i
		}
		at += int(ins.Width())
	}
	entry := machine{slots: map[int64]value{}}
	for r := range entry.registers {
		entry.registers[r] = value{kind: unset}
	}
	entry.registers[asm.R1] = value{kind: context}
	a.enter(0, 0, entry)
	for len(a.todo) > 0 {
		i := a.todo[len(a.todo)-1]
		a.todo = a.todo[:len(a.todo)-1]
		if err := a.step(i); err != nil {
			return nil, fmt.Errorf("instruction %d, %v: %w", i, code[i], err)
		}
	}
	f = a.summary()
	f.instructions = at
	return f, nil
}

// enter records that instruction i of a function is reached with m.
func (a *analysis) enter(function, i int, m machine) {
	m.registers[asm.R10] = value{kind: stack}
	known, ok := a.before[i]
	if ok {
		var more bool
		if m, more = known.join(m); !more {
			return
		}
	}
	a.before[i], a.owner[i] = m, function
	a.todo = append(a.todo, i)
}

// violate records a violation. The analysis continues, to find all violations.
func (a *analysis) violate(i int, format string, args ...any) {
	a.found[i] = append(a.found[i], fmt.Sprintf("instruction %d, %v: ", i, a.code[i])+fmt.Sprintf(format, args...))
}

// step applies one instruction to the machine.
func (a *analysis) step(i int) error {
	ins, function := a.code[i], a.owner[i]
	m := machine{registers: a.before[i].registers, slots: maps.Clone(a.before[i].slots)}
	delete(a.found, i)
	r := &m.registers
	switch class := ins.OpCode.Class(); class {
	case asm.LdClass:
		if !ins.OpCode.IsDWordLoad() {
			a.violate(i, "reads the packet through the old BPF_ABS and BPF_IND")
			return nil
		}
		r[ins.Dst] = a.immediate(ins)
	case asm.LdXClass:
		r[ins.Dst] = a.load(ins, m)
	case asm.StClass, asm.StXClass:
		a.store(i, ins, &m)
	case asm.ALUClass, asm.ALU64Class:
		r[ins.Dst] = arithmetic(ins, r[ins.Dst], r[ins.Src])
	case asm.JumpClass, asm.Jump32Class:
		return a.jump(i, ins, m)
	}
	return a.follow(function, i, 0, m)
}

// follow continues at a distance from instruction i, in raw instructions.
func (a *analysis) follow(function, i int, distance int, m machine) error {
	to, ok := a.index[a.offset[i]+int(a.code[i].Width())+distance]
	if !ok {
		return errors.New("goes on outside of the program")
	}
	a.enter(function, to, m)
	return nil
}

func (a *analysis) immediate(ins asm.Instruction) value {
	switch {
	case ins.IsLoadFromMap() && ins.Src == asm.PseudoMapValue && a.isCounts(ins):
		return value{kind: countsPtr}
	case ins.IsLoadFromMap():
		return value{kind: otherMap}
	case ins.Src == asm.R0:
		return value{kind: constant, n: ins.Constant}
	default: // the address of a kernel function or variable
		return value{kind: unknown}
	}
}

// load returns the content of memory.
func (a *analysis) load(ins asm.Instruction, m machine) value {
	base, whole := m.registers[ins.Src], ins.OpCode.Size() == asm.DWord
	switch base.kind {
	case context:
		// Every value of the context is treated as a pointer into the frame, like data and data_end. In xdp_md these have 4 bytes.
		return value{kind: packet}
	case stack:
		if v, ok := m.slots[base.n+int64(ins.Offset)]; ok && whole {
			return v
		}
	case packet, countsPtr, otherMap:
		return value{kind: scalar} // no addresses are stored there
	default:
	}
	if whole {
		return value{kind: unknown}
	}
	return value{kind: scalar} // too small for an address
}

// store records a write, which must be to the counts or to the stack.
func (a *analysis) store(i int, ins asm.Instruction, m *machine) {
	base := m.registers[ins.Dst]
	source := m.registers[ins.Src]
	if ins.OpCode.Class() == asm.StClass {
		source = value{kind: constant, n: ins.Constant}
	}
	switch base.kind {
	case countsPtr:
	case stack:
		at := base.n + int64(ins.Offset)
		for slot := at - 7; slot < at+8; slot++ {
			delete(m.slots, slot)
		}
		if ins.OpCode.Size() == asm.DWord && ins.OpCode.Mode() == asm.MemMode {
			m.slots[at] = source
		}
	case packet:
		a.violate(i, "writes into the packet, or what the context holds")
	case context:
		a.violate(i, "writes into the context")
	case otherMap:
		a.violate(i, "writes into another map than the counts")
	default:
		a.violate(i, "writes to an unknown address")
	}
	if ins.OpCode.Mode() == asm.AtomicMode {
		// Some atomic operations also load into a register.
		m.registers[ins.Src], m.registers[asm.R0] = value{kind: unknown}, value{kind: unknown}
	}
}

// arithmetic returns the result of an operation.
func arithmetic(ins asm.Instruction, dst, src value) value {
	op, wide := ins.OpCode.ALUOp(), ins.OpCode.Class() == asm.ALU64Class
	if ins.OpCode.Source() == asm.ImmSource {
		src = value{kind: constant, n: ins.Constant}
		if !wide {
			src.n = int64(uint32(ins.Constant))
		}
	}
	if op == asm.Swap || op == asm.Neg { // no source operand
		src = dst
	}
	if op == asm.Mov {
		switch {
		case ins.Offset != 0: // generated by the kernel: the address of a per-CPU variable, or in another address space
			return value{kind: unknown}
		case wide:
			return src
		case src.kind == constant:
			return value{kind: constant, n: int64(uint32(src.n))}
		case src.kind == scalar:
			return src
		default:
			return value{kind: unknown} // the lower half of a pointer
		}
	}
	if op == asm.MovSX8 || op == asm.MovSX16 || op == asm.MovSX32 {
		dst = src
	}
	if dst.isNumber() && src.isNumber() {
		return value{kind: scalar}
	}
	if !wide {
		return value{kind: unknown}
	}
	switch {
	case op == asm.Sub && dst.kind == packet && src.kind == packet:
		return value{kind: scalar} // a difference of pointers
	case dst.kind == stack && src.kind == constant && op == asm.Add:
		return value{kind: stack, n: dst.n + src.n}
	case dst.kind == stack && src.kind == constant && op == asm.Sub:
		return value{kind: stack, n: dst.n - src.n}
	case dst.kind == stack || src.kind == stack:
		return value{kind: unknown}
	case (op == asm.Add || op == asm.Sub) && dst.kind != unknown && src.isNumber():
		return dst
	case op == asm.Add && dst.isNumber() && src.kind != unknown:
		return src
	default:
		return value{kind: unknown}
	}
}

// jump follows a jump, a call or an exit.
func (a *analysis) jump(i int, ins asm.Instruction, m machine) error {
	function := a.owner[i]
	switch ins.OpCode.JumpOp() {
	case asm.Exit:
		return a.exit(function, i, m.registers[asm.R0])
	case asm.Call:
		return a.call(function, i, ins, m)
	case asm.JCOND, asm.InvalidJumpOp:
		return errors.New("an unknown jump")
	default:
	}
	distance := int(ins.Offset)
	if ins.OpCode.Class() == asm.Jump32Class && ins.OpCode.JumpOp() == asm.Ja {
		distance = int(ins.Constant)
	}
	if name := ins.Reference(); name != "" {
		to, ok := a.symbols[name]
		if !ok {
			return fmt.Errorf("no %q to jump to", name)
		}
		distance = a.offset[to] - a.offset[i] - int(ins.Width())
	}
	if ins.OpCode.JumpOp() != asm.Ja {
		if err := a.follow(function, i, 0, m); err != nil {
			return err
		}
	}
	return a.follow(function, i, distance, m)
}

// exit records what a function returns.
func (a *analysis) exit(function, i int, result value) error {
	if function == 0 && result != (value{kind: constant, n: pass}) {
		a.violate(i, "returns something else than XDP_PASS")
	}
	known, ok := a.returns[function]
	if ok {
		result = result.join(known)
	}
	if a.returns[function] = result; !ok || result != known {
		for caller := range a.callers[function] {
			a.todo = append(a.todo, caller)
		}
	}
	return nil
}

func (a *analysis) call(function, i int, ins asm.Instruction, m machine) error {
	result := value{kind: scalar}
	switch {
	case ins.IsBuiltinCall():
		if a.helpers != nil && !slices.Contains(a.helpers, asm.BuiltinFunc(ins.Constant)) {
			a.violate(i, "calls a helper that is not in the list")
			result = value{kind: unknown}
		}
		if to := m.registers[asm.R1].kind; to == stack {
			clear(m.slots) // the helper may write there
		} else if a.helpers != nil && asm.BuiltinFunc(ins.Constant) == asm.FnProbeReadKernel {
			a.violate(i, "reads to another place than the stack")
		}
	case ins.IsKfuncCall() && slices.Contains(a.kfuncs, ins.Reference()):
		result = value{kind: unknown} // an address that is only read: the verifier rejects writing through it
	case ins.IsFunctionCall():
		to, err := a.callee(i, ins)
		if err != nil {
			return err
		}
		if a.callers[to] == nil {
			a.callers[to] = map[int]bool{}
		}
		a.callers[to][i] = true
		entry := machine{slots: map[int64]value{}}
		for r := range entry.registers {
			entry.registers[r] = value{kind: unset}
		}
		for r := asm.R1; r <= asm.R5; r++ {
			if entry.registers[r] = m.registers[r]; m.registers[r].kind == stack {
				entry.registers[r] = value{kind: unknown} // belongs to the caller, not tracked
			}
		}
		a.enter(to, to, entry)
		var returned bool
		if result, returned = a.returns[to]; !returned {
			return nil // visited again when the callee has returned
		}
	default:
		a.violate(i, "calls a function of the kernel that is no helper")
		result = value{kind: unknown}
	}
	for r := asm.R1; r <= asm.R5; r++ {
		m.registers[r] = value{kind: unset}
	}
	m.registers[asm.R0] = result
	return a.follow(function, i, 0, m)
}

// callee returns the first instruction of the called function.
func (a *analysis) callee(i int, ins asm.Instruction) (int, error) {
	if name := ins.Reference(); name != "" {
		to, ok := a.symbols[name]
		if !ok {
			return 0, fmt.Errorf("no %q to call", name)
		}
		return to, nil
	}
	// After rewriting, the constant is the number of the function and the offset is the distance
	// (kernel/bpf/verifier.c, jit_subprogs).
	to, ok := a.index[a.offset[i]+1+int(ins.Offset)]
	if !ok || ins.Offset == 0 {
		return 0, errors.New("a call to nowhere: is the kernel's JIT compiler off?")
	}
	return to, nil
}

func (a *analysis) summary() *finding {
	f := &finding{calls: map[asm.BuiltinFunc]int{}}
	lowest := map[int]int64{}
	called := map[int]map[int]bool{}
	functions := map[int]bool{}
	for i := range a.code {
		m, reached := a.before[i]
		if !reached {
			continue
		}
		f.violations = append(f.violations, a.found[i]...)
		ins, function := a.code[i], a.owner[i]
		functions[function] = true
		memory := func(base value) {
			if base.kind == stack {
				lowest[function] = min(lowest[function], base.n+int64(ins.Offset))
			}
		}
		switch {
		case ins.OpCode.Class().IsStore():
			f.stores++
			if m.registers[ins.Dst].kind == countsPtr && ins.OpCode.Mode() != asm.AtomicMode {
				f.plain++
			}
			memory(m.registers[ins.Dst])
		case ins.OpCode.Class() == asm.LdXClass:
			memory(m.registers[ins.Src])
		case ins.OpCode.JumpOp() == asm.Exit && function == 0:
			f.exits++
		case ins.IsBuiltinCall():
			f.calls[asm.BuiltinFunc(ins.Constant)]++
		}
	}
	for to, from := range a.callers {
		for i := range from {
			if called[a.owner[i]] == nil {
				called[a.owner[i]] = map[int]bool{}
			}
			called[a.owner[i]][to] = true
		}
	}
	// The kernel rejects recursion.
	var depth func(function int) int64
	depth = func(function int) int64 {
		var below int64
		for to := range called[function] {
			below = max(below, depth(to))
		}
		return below - lowest[function]
	}
	f.depth = depth(0)
	f.functions = len(functions)
	return f
}
