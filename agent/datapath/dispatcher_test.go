// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
)

// How it is with other parties is for test/kernels/sharing. Some kernels refuse it, and then it is said why. Those of command
// kernels all take it.
func TestASharedHookOrWhyNot(t *testing.T) {
	h := newHost(t)
	before := h.active(t, "peer")
	var err error
	h.net.Do(func() {
		err = h.Attach(plan.Attachment{Index: h.index, Name: "eth0", Mode: plan.Native, ViaDispatcher: true})
	})
	if err != nil {
		if !errors.Is(err, plan.ErrDispatcherRefused) || os.Getenv(report.Guest) != "" {
			t.Errorf("attach: %v, want nothing, or %v on a kernel that command kernels does not try", err, plan.ErrDispatcherRefused)
		}
		h.expectUnhooked(t)
		h.expectNothingShared(t)
		return
	}
	if a := h.onlyAttached(t); !a.ViaDispatcher || a.Index != h.index || a.Outdated {
		t.Errorf("attached is %+v", a)
	}
	off := []plan.SwitchedOff{{Interface: "peer", Features: missing(before, h.active(t, "peer"))}}
	if a := h.onlyAttached(t); !cmp.Equal(off, a.SwitchedOff) {
		t.Errorf("switched off: %v, want %v", a.SwitchedOff, off)
	}
	h.traffic(t, 10)
	h.expectCounted(t)
	h.cleanup(t)
	h.expectUnhooked(t)
	if after := h.active(t, "peer"); !cmp.Equal(before, after) {
		t.Errorf("features of the peer: %v, before: %v", after, before)
	}
	h.expectNothingShared(t)
}

// expectNothingShared expects that nothing is pinned but what all share, and nothing there.
func (h *host) expectNothingShared(t *testing.T) {
	t.Helper()
	if err := os.Remove(filepath.Join(h.bpffs, "xdp")); err != nil {
		t.Errorf("the dispatchers' folder: %v", err)
	}
	h.expectNothingPinned(t)
}

// An attachment without a link is looked for on the hook, and not found where the hook is another's.
func TestAnotherHoldsTheHookOfCountsWithoutALink(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	a := h.onlyAttached(t)
	if err := os.Rename(filepath.Join(a.Pin, "link"), filepath.Join(h.bpffs, "aside")); err != nil {
		t.Fatal(err)
	}
	if a := h.onlyAttached(t); a.Index != 0 || a.ViaDispatcher {
		t.Errorf("attached is %+v", a)
	}
	var err error
	h.net.Do(func() {
		err = h.Attach(plan.Attachment{Index: h.index, Name: "eth0", Mode: plan.Native, ViaDispatcher: true})
	})
	if !errors.Is(err, plan.ErrPending) {
		t.Errorf("attach: %v, want %v", err, plan.ErrPending)
	}
}
