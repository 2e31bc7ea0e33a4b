// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func TestAnErrorOfReadingATagIsNotKept(t *testing.T) {
	h := newHost(t)
	calls, load := 0, h.tags.load
	h.tags.load = func(v variant) (*ebpf.Program, error) {
		if calls++; calls == 1 {
			return nil, unix.ENOMEM
		}
		return load(v)
	}
	if tag, err := h.tags.of(oneBuffer); err == nil {
		t.Errorf("the first call returns %q", tag)
	}
	for range 2 {
		if tag, err := h.tags.of(oneBuffer); err != nil || tag == "" {
			t.Errorf("got %q, %v", tag, err)
		}
	}
	if calls != 2 {
		t.Errorf("the program is loaded %d times, want 2", calls)
	}
}

func TestWhetherGenericModeCountsWireFrames(t *testing.T) {
	for name, test := range map[string]struct {
		err  error // of loading either program
		all  bool  // or any other
		want bool
	}{
		"the kernel loads them":            {nil, false, true},
		"the kernel refuses them":          {unix.EINVAL, false, false},
		"the kernel has no memory for it":  {unix.ENOMEM, false, true},
		"the process has no right to load": {unix.EPERM, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			load := h.tags.load
			h.tags.load = func(v variant) (*ebpf.Program, error) {
				if test.err != nil && (v.optional() || test.all) {
					return nil, test.err
				}
				return load(v)
			}
			if got := h.CountsWireFrames(); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
		})
	}
}
