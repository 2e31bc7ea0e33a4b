// SPDX-License-Identifier: Apache-2.0

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

// variant is one of the two programs, which count in the same way.
type variant string

const (
	oneBuffer   variant = "one buffer"   // bpf.NewProgram: cheaper
	manyBuffers variant = "many buffers" // bpf.NewFragsProgram: any MTU
)

// variants are the programs for native mode, in the order in which they are tried. Only the driver knows which one an
// interface needs: drivers differ in the largest MTU that fits into one buffer, and a veth checks its peer's MTU.
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

// choose calls try with each variant until one succeeds, and returns its program. If none does, it returns the error of the
// first one, or that of the second if the first failed because of the MTU.
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

// findTags loads the programs only to read their tags, since kernels compute them differently (SHA-1, from 6.18 on SHA-256).
// The error is that of the variant that every kernel has to accept.
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

// otherVersion reports whether the link runs a program that is no variant of the one that Attach loads, or that is not the
// pinned one.
func (d *Datapath) otherVersion(f folder, runs uint32) (bool, error) {
	ours, err := d.tags()
	if err != nil {
		return false, nil //nolint:nilerr // a program that cannot be loaded cannot replace it
	}
	id, tag, err := f.program()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errForeign) {
		return true, nil
	}
	return id != runs || !slices.Contains(slices.Collect(maps.Values(ours)), tag), err
}
