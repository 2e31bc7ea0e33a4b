// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/bpf"
)

func TestLayoutsAreReadAsTheProgramWritesThem(t *testing.T) {
	known := layouts()
	if last := known[len(known)-1]; last.version != bpf.Layout || last.slots != bpf.Slots {
		t.Errorf("the last layout is %d with %d slots, that of the program %d with %d", last.version, last.slots, bpf.Layout, bpf.Slots)
	}
	for i, l := range known {
		if l.version != i+1 {
			t.Errorf("layout %d is at %d", l.version, i)
		}
		used := map[int]bool{}
		for class, slot := range l.slot {
			if used[slot] || slot < 0 || slot >= l.slots {
				t.Errorf("layout %d: %s is in slot %d", l.version, traffic.Class(class), slot)
			}
			used[slot] = true
		}
	}
}

// upgrade opens the datapath as an agent does that brings a new layout.
func (h *host) upgrade(t *testing.T) {
	t.Helper()
	before := h.layouts
	h.open(t)
	next := *before[len(before)-1]
	next.version++
	h.layouts = append(slices.Clip(before), &next)
}

// sum waits until as many frames were counted as sent, in all maps together, and compares every class.
func (h *host) sum(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		readings, err := h.Read()
		if err != nil {
			t.Fatal(err)
		}
		var counted traffic.Totals
		for _, r := range readings {
			counted = counted.Plus(r.Totals)
		}
		if counted.Sum().Packets >= h.sent.Sum().Packets || time.Now().After(deadline) {
			if diff := cmp.Diff(listed(h.sent), listed(counted)); diff != "" {
				t.Fatalf("not what was sent (-sent +counted):\n%s", diff)
			}
			return
		}
	}
}

// expectMoved looks at what an upgrade has left: the counts of the earlier layout, which nothing adds to, and an
// attachment of the present one. It returns the earlier one.
func (h *host) expectMoved(t *testing.T, before plan.Attachment) (old plan.Attachment) {
	t.Helper()
	attached := h.attached(t)
	if len(attached) != 2 {
		t.Fatalf("attached: %+v", attached)
	}
	old, now := attached[0], attached[1]
	if old.Map != before.Map || old.Index != 0 || old.Pin != before.Pin {
		t.Errorf("%+v is left of %+v", old, before)
	}
	if now.Map == before.Map || now.Index != h.index || now.Outdated || now.Pin != h.folder(h.index).path {
		t.Errorf("attached: %+v", now)
	}
	if hook := h.hook(t, h.index); hook.ProgId != now.Program || hook.AttachMode != drv {
		t.Errorf("%+v, the hook says %+v", now, hook)
	}
	return old
}

func TestUpgradeToAnotherLayoutLosesNothing(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	h.traffic(t, 5)
	h.sum(t)
	for range 2 { // and once more
		before := h.onlyAttached(t)
		h.upgrade(t)
		h.traffic(t, 5)
		if a := h.onlyAttached(t); !a.Outdated || a.Map != before.Map || a.Program != before.Program || a.Index != h.index {
			t.Fatalf("after the upgrade %+v, before %+v", a, before)
		}
		h.mustAttach(t, plan.Native)
		h.traffic(t, 5)
		h.sum(t)
		old := h.expectMoved(t, before)
		h.mustAttach(t, plan.Native) // changes nothing
		h.expectMoved(t, before)
		for _, a := range h.attached(t) {
			if a.Index != 0 && (len(a.SwitchedOff) == 0 || !cmp.Equal(a.SwitchedOff, before.SwitchedOff)) {
				t.Errorf("switched off: %v, before: %v", a.SwitchedOff, before.SwitchedOff)
			}
		}

		readings, err := h.Read()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range readings { // as an agent does that has saved them
			if r.Map.ID == old.Map {
				h.sent = h.sent.Since(r.Totals)
			}
		}
		if err := h.Detach(old); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(h.layoutPins(h.layouts[len(h.layouts)-2])); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the folder of the earlier layout: %v", err)
		}
		h.sum(t)
	}
	if err := h.Detach(h.onlyAttached(t)); err != nil {
		t.Fatal(err)
	}
	h.expectNothingPinned(t)
	h.expectUnhooked(t)
}

// A crash at any step of the move: what it leaves is taken up, or taken back.
func TestUpgradeInterrupted(t *testing.T) {
	for name, interrupt := range map[string]func(t *testing.T, h *host, old, to folder){
		"before the program was pinned": func(t *testing.T, _ *host, _, to folder) {
			if err := os.Remove(to.programPin()); err != nil {
				t.Fatal(err)
			}
		},
		"before the program ran": func(*testing.T, *host, folder, folder) {},
		"before the link was pinned": func(t *testing.T, h *host, old, to folder) {
			h.run(t, old, to)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.mustAttach(t, plan.Native)
			h.traffic(t, 5)
			h.sum(t)
			before := h.onlyAttached(t)
			h.upgrade(t)
			old, to := h.folderOf(h.layouts[len(h.layouts)-2], h.index), h.folder(h.index)
			counts, err := h.makeCounts(to)
			if err != nil {
				t.Fatal(err)
			}
			defer counts.Close()
			program, err := bpf.NewProgram(h.spec, counts)
			if err != nil {
				t.Fatal(err)
			}
			defer program.Close()
			if err := to.pinProgram(program); err != nil {
				t.Fatal(err)
			}
			interrupt(t, h, old, to)
			h.traffic(t, 5)
			h.sum(t)

			// As an agent does, pass by pass: give up what is gone, attach what is wanted.
			for range 3 {
				for _, a := range h.attached(t) {
					if a.Index == 0 && a.Map != before.Map {
						if err := h.Detach(a); err != nil {
							t.Fatal(err)
						}
					}
				}
				if err := h.attach(h.index, plan.Native); err != nil && !errors.Is(err, plan.ErrPending) {
					t.Fatal(err)
				}
			}
			h.traffic(t, 5)
			h.sum(t)
			h.expectMoved(t, before)
		})
	}
}

// run lets the link of the old folder run the program that is pinned in the new one.
func (h *host) run(t *testing.T, old, to folder) {
	t.Helper()
	l, err := openLink(old.linkPin())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	program, err := ebpf.LoadPinnedProgram(to.programPin(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if err := l.Update(program); err != nil {
		t.Fatal(err)
	}
}

func TestDowngradeTouchesNothingAndReportsNothing(t *testing.T) {
	h := newHost(t)
	older := h.layouts
	h.upgrade(t)
	newer := h.layouts
	h.mustAttach(t, plan.Native)
	before := h.onlyAttached(t)

	h.open(t)
	h.layouts = older
	if attached, err := h.Attached(); !errors.Is(err, errNewer) {
		t.Errorf("attached %v, error %v", attached, err)
	}
	if readings, err := h.Read(); !errors.Is(err, errNewer) {
		t.Errorf("readings %v, error %v", readings, err)
	}
	h.traffic(t, 3)

	h.open(t)
	h.layouts = newer
	h.expectCounted(t)
	if diff := cmp.Diff(before, h.onlyAttached(t)); diff != "" {
		t.Errorf("after a downgrade and an upgrade (-before +after):\n%s", diff)
	}
}
