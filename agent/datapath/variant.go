// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/agent/xdp"
	"github.com/xdp-operator/xdp-operator/bpf"
)

// variant is one of the programs. All have the same classes and maps; only some count the frames of an aggregate (countsWireFrames).
type variant string

const (
	oneBuffer   variant = "one buffer"   // bpf.NewProgram: cheaper
	manyBuffers variant = "many buffers" // bpf.NewFragsProgram: any MTU
	genericMode variant = "generic mode" // bpf.NewGenericProgram: does not count what the node itself sends

	// For generic mode, too. These count the frames of an aggregate, which genericMode counts as one.
	wireByKfunc  variant = "generic mode, by kfuncs"   // bpf.NewWireKfuncProgram
	wireByHelper variant = "generic mode, by a helper" // bpf.NewWireHelperProgram
)

// variantsFor has the programs for each mode, in the order in which they are tried. For native mode only the driver knows
// which one an interface needs: drivers differ in the largest MTU that fits into one buffer, and a veth checks its peer's MTU.
// In generic mode the kernel makes one buffer of every frame.
var variantsFor = map[plan.Mode][]variant{
	plan.Native:  {oneBuffer, manyBuffers},
	plan.Generic: {wireByKfunc, wireByHelper, genericMode},
}

// optional reports whether there are kernels that do not load the variant, and another one is used there.
func (v variant) optional() bool { return v == manyBuffers || v.countsWireFrames() }

func (v variant) countsWireFrames() bool { return v == wireByKfunc || v == wireByHelper }

// load returns the variant as a program that counts into the map.
func (v variant) load(spec *ebpf.CollectionSpec, counts *ebpf.Map) (*ebpf.Program, error) {
	load := map[variant]func(*ebpf.CollectionSpec, *ebpf.Map) (*ebpf.Program, error){
		oneBuffer: bpf.NewProgram, manyBuffers: bpf.NewFragsProgram, genericMode: bpf.NewGenericProgram,
		wireByKfunc: bpf.NewWireKfuncProgram, wireByHelper: bpf.NewWireHelperProgram,
	}[v]
	program, err := load(spec, counts)
	if err != nil {
		return nil, permission(fmt.Errorf("load the program for %s: %w", v, err))
	}
	return program, nil
}

// choose calls try with each variant for the mode until one succeeds, and returns its program. If none does, it returns the
// error of the first one, or that of the second if the first failed because of the MTU.
func choose(spec *ebpf.CollectionSpec, counts *ebpf.Map, mode plan.Mode, try func(*ebpf.Program) error) (*ebpf.Program, error) {
	var refused error
	for _, v := range variantsFor[mode] {
		program, err := v.load(spec, counts)
		if err != nil && v.countsWireFrames() {
			continue // genericMode has the same error if it is not that of the variant
		}
		if err != nil {
			refused = cmp.Or(refused, err)
		} else if err = try(program); err == nil {
			return program, nil
		} else {
			program.Close()
			if refused == nil || errors.Is(refused, plan.ErrMTUTooLarge) {
				refused = err
			}
		}
		if !xdp.AnotherVariantMayWork(err) {
			break
		}
	}
	return nil, refused
}

// tags reads the kernel's tags of the variants by loading them, since kernels compute tags differently (SHA-1, from 6.18 on
// SHA-256). Each variant is loaded only when its tag is needed, and once. It may be used concurrently.
type tags struct {
	load func(variant) (*ebpf.Program, error)

	mu    sync.Mutex
	found map[variant]string // "" if the kernel does not load the variant
}

// newTags is given the specification by reference, because a test changes it.
func newTags(spec **ebpf.CollectionSpec) *tags {
	return &tags{found: map[variant]string{}, load: func(v variant) (*ebpf.Program, error) {
		counts, err := bpf.NewMap(*spec)
		if err != nil {
			return nil, err
		}
		defer counts.Close()
		return v.load(*spec, counts)
	}}
}

// of returns the tag of the variant, "" if it is optional and the kernel does not load it. Another error is not kept: a lack of
// memory passes.
func (t *tags) of(v variant) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.find(v)
}

func (t *tags) find(v variant) (string, error) {
	if tag, ok := t.found[v]; ok {
		return tag, nil
	}
	program, err := t.load(v)
	if err != nil && v.optional() && !isTransient(err) {
		// If this process may not load programs, nothing is known about the variant.
		if _, err := t.find(oneBuffer); err != nil {
			return "", err
		}
		t.found[v] = ""
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return "", err
	}
	t.found[v] = info.Tag
	return info.Tag, nil
}

// isTransient reports whether the same program may be loaded later.
func isTransient(err error) bool {
	return errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)
}

// countsWireFrames reports whether the kernel loads a variant for generic mode that counts the frames of an aggregate. It is true
// if that cannot be tried now, so that a lack of memory or of a capability changes no mode.
func (t *tags) countsWireFrames() bool {
	for _, v := range variantsFor[plan.Generic] {
		if !v.countsWireFrames() {
			continue
		}
		if tag, err := t.of(v); err != nil || tag != "" {
			return true
		}
	}
	return false
}

// has reports whether the tag is that of a variant which Attach loads for the mode. In generic mode this is only the first that
// can be loaded, so that an earlier version's program, which counts aggregates as one packet, is replaced.
func (t *tags) has(mode plan.Mode, tag string) (bool, error) {
	for _, v := range variantsFor[mode] {
		own, err := t.of(v)
		if err != nil || own == tag {
			return err == nil, err
		}
		if own != "" && mode == plan.Generic {
			return false, nil
		}
	}
	return false, nil
}

// countsAggregates reports whether the folder's program counts an aggregate of several frames as one packet.
func (d *Datapath) countsAggregates(f folder, mode plan.Mode) bool {
	if mode != plan.Generic {
		return false
	}
	_, tag, err := f.program()
	if err != nil || tag == "" {
		return true // what runs is not known
	}
	for _, v := range variantsFor[mode] {
		if own, err := d.tags.of(v); v.countsWireFrames() && err == nil && own == tag {
			return false
		}
	}
	return true
}

// otherVersion reports whether the link runs a program that is no variant of the one that Attach loads for this mode, or that
// is not the pinned one.
func (d *Datapath) otherVersion(f folder, runs uint32, mode plan.Mode) (bool, error) {
	id, tag, err := f.program()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errForeign) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	current, err := d.tags.has(mode, tag)
	if err != nil {
		return false, nil //nolint:nilerr // a program that cannot be loaded cannot replace it
	}
	return id != runs || !current, nil
}

// modeOf returns the mode in which the program is attached to the interface. The link's information does not include it. The
// error wraps plan.ErrInterfaceGone if the interface is gone or has another program.
func modeOf(index int, program uint32) (plan.Mode, error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return "", fmt.Errorf("%w: %w", plan.ErrInterfaceGone, err)
	}
	hook := xdp.HookOf(l)
	if hook.Program != program || hook.Mode == "" {
		return "", fmt.Errorf("%w: program %d is not attached to interface %d", plan.ErrInterfaceGone, program, index)
	}
	return hook.Mode, nil
}
