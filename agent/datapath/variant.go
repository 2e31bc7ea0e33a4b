package datapath

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/agent/xdp"
	"github.com/xdp-operator/xdp-operator/bpf"
)

// variant names one of the two programs that count alike.
type variant string

const (
	oneBuffer   variant = "one buffer"   // bpf.NewProgram: cheaper
	manyBuffers variant = "many buffers" // bpf.NewFragsProgram: any MTU
)

// variants are what may run natively, in the order in which they are tried. Which one an interface needs is for its
// driver to say: how large an MTU fits into one buffer differs between drivers, and a veth looks at its peer's.
var variants = []variant{oneBuffer, manyBuffers}

// load returns the variant as a program that counts into the map.
func (v variant) load(spec *ebpf.CollectionSpec, counts *ebpf.Map) (*ebpf.Program, error) {
	load := bpf.NewProgram
	if v == manyBuffers {
		load = bpf.NewFragsProgram
	}
	program, err := load(spec, counts)
	if err != nil {
		return nil, permission(fmt.Errorf("load the program for %s: %w", v, err))
	}
	return program, nil
}

// choose tries the variants in turn until one is taken, and returns its program. If none is, what counts is why the
// first was refused, unless that was for an MTU with which the next has no difficulty.
func choose(spec *ebpf.CollectionSpec, counts *ebpf.Map, try func(*ebpf.Program) error) (*ebpf.Program, error) {
	var refused error
	for _, v := range variants {
		program, err := v.load(spec, counts)
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

// tags are the kernel's tags of those variants that can be loaded.
type tags map[variant]string

// findTags loads the programs for nothing but their tags: kernels differ in how they compute them (SHA-1, from 6.18
// SHA-256). The error is that of the variant that every kernel has to take.
func (d *Datapath) findTags() (tags, error) {
	counts, err := bpf.NewMap(d.spec)
	if err != nil {
		return nil, err
	}
	defer counts.Close()
	found := tags{}
	for _, v := range variants {
		program, err := v.load(d.spec, counts)
		if err != nil && v == manyBuffers {
			continue // before Linux 5.18
		}
		if err != nil {
			return nil, err
		}
		info, err := program.Info()
		program.Close()
		if err != nil {
			return nil, err
		}
		found[v] = info.Tag
	}
	return found, nil
}

// otherVersion reports that the program that the link runs is another one than Attach would load, in whatever variant, or
// is not pinned beside it.
func (d *Datapath) otherVersion(f folder, runs uint32) (bool, error) {
	ours, err := d.tags()
	if err != nil {
		return false, nil //nolint:nilerr // a program that cannot be loaded here is nothing better to offer
	}
	id, tag, err := f.program()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errForeign) {
		return true, nil
	}
	return id != runs || !slices.Contains(slices.Collect(maps.Values(ours)), tag), err
}
