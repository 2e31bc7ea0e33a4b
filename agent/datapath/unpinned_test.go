// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
)

func newUnpinned(t *testing.T) *Unpinned {
	t.Helper()
	u, err := OpenUnpinned(bootID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// hold attaches without pins in the host's network namespace.
func (h *host) hold(u *Unpinned, index int, mode plan.Mode) (err error) {
	h.net.Do(func() { err = u.Attach(plan.Attachment{Index: index, Name: nasty, Mode: mode}) })
	return err
}

// expectHeld waits until the only attachment has counted what was sent.
func (h *host) expectHeld(t *testing.T, u *Unpinned) traffic.Reading {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		readings, err := u.Read()
		if err != nil || len(readings) != 1 {
			t.Fatalf("readings %v, error %v", readings, err)
		}
		if readings[0].Totals.Sum().Packets >= h.sent.Sum().Packets || time.Now().After(deadline) {
			if diff := cmp.Diff(listed(h.sent), listed(readings[0].Totals)); diff != "" {
				t.Fatalf("not what was sent (-sent +counted):\n%s", diff)
			}
			return readings[0]
		}
	}
}

func TestUnpinnedCountsUntilItIsDetached(t *testing.T) {
	for mode, want := range map[plan.Mode]uint32{plan.Native: drv, plan.Auto: drv, plan.Generic: skb} {
		t.Run(string(mode), func(t *testing.T) {
			h, u := newHost(t), newUnpinned(t)
			if err := h.hold(u, h.index, mode); err != nil {
				t.Fatal(err)
			}
			h.traffic(t, 20)
			r := h.expectHeld(t, u)
			hook := h.hook(t, h.index)
			facts, err := u.Attached()
			if diff := cmp.Diff([]plan.Attachment{{Index: h.index, Program: hook.ProgId, Map: r.Map.ID}}, facts); diff != "" || err != nil {
				t.Errorf("attached (-want +got), error %v:\n%s", err, diff)
			}
			if r.Index != h.index || r.Map.Boot != bootID || r.Map.ID == 0 || hook.AttachMode != want {
				t.Errorf("read index %d of map %v, hook %+v", r.Index, r.Map, hook)
			}

			for range 2 {
				if err := u.Detach(); err != nil {
					t.Fatal(err)
				}
			}
			h.expectUnhooked(t)
			before := h.sent
			h.traffic(t, 1) // which nobody counts any more
			h.sent = before
			if r := h.expectHeld(t, u); r.Index != 0 {
				t.Errorf("still on interface %d", r.Index)
			}
			if facts, err := u.Attached(); err != nil || len(facts) != 1 || !cmp.Equal(facts[0], plan.Attachment{Map: r.Map.ID}) {
				t.Errorf("attached %+v, error %v", facts, err)
			}
			h.expectNothingPinned(t)
		})
	}
}

func TestUnpinnedCountsJumboFramesNatively(t *testing.T) {
	h, u := newHost(t), newUnpinned(t)
	h.setMTU(t, 9000)
	mode := plan.Native
	if !knowsFragments(t) {
		if err := h.hold(u, h.index, mode); !errors.Is(err, plan.ErrMTUTooLarge) {
			t.Errorf("native: %v", err)
		}
		mode = plan.Auto
	}
	if err := h.hold(u, h.index, mode); err != nil {
		t.Fatal(err)
	}
	h.jumbo(t, 9000)
	h.expectHeld(t, u)
}

func TestUnpinnedSaysWhyItCannotAttach(t *testing.T) {
	h, u := newHost(t), newUnpinned(t)
	bridge := h.net.Bridge(t, "br0")
	if err := h.hold(u, h.index, plan.Auto); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		index int
		mode  plan.Mode
		want  error
	}{
		"an interface that it holds itself":  {h.index, plan.Auto, plan.ErrHookInUse},
		"and in the other mode":              {h.index, plan.Generic, plan.ErrHookInUse},
		"an interface that there is not":     {4711, plan.Auto, plan.ErrInterfaceGone},
		"a driver that has no native XDP":    {bridge, plan.Native, plan.ErrNativeUnsupported},
		"an agent's Attach meets it as well": {0, plan.Auto, plan.ErrHookInUse},
	} {
		var err error
		if test.index == 0 {
			err = h.attach(h.index, test.mode)
		} else {
			err = h.hold(u, test.index, test.mode)
		}
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if facts, err := u.Attached(); err != nil || len(facts) != 1 || facts[0].Index != h.index {
		t.Errorf("attached %+v, error %v", facts, err)
	}
	if hook := h.hook(t, bridge); hook.Attached {
		t.Errorf("attached to the bridge: %+v", hook)
	}
}

func TestUnpinnedKeepsTheCountsOfADeletedInterface(t *testing.T) {
	h, u := newHost(t), newUnpinned(t)
	if err := h.hold(u, h.index, plan.Native); err != nil {
		t.Fatal(err)
	}
	h.traffic(t, 5)
	h.expectHeld(t, u)
	h.net.Delete(t, nasty)
	if r := h.expectHeld(t, u); r.Index != 0 {
		t.Errorf("still on interface %d", r.Index)
	}
	if err := u.Detach(); err != nil {
		t.Errorf("detach: %v", err)
	}
}

func TestUnpinnedNeedsTheSameCapabilities(t *testing.T) {
	h := newHost(t)
	h.withCapabilities(t, []int{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON}, func() {
		u, err := OpenUnpinned(bootID)
		if err != nil {
			t.Error(err)
			return
		}
		if err := u.Attach(plan.Attachment{Index: h.index, Name: nasty, Mode: plan.Auto}); err != nil {
			t.Error(err)
		}
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	u := newUnpinned(t)
	h.withCapabilities(t, nil, func() {
		if err := u.Attach(plan.Attachment{Index: h.index, Name: nasty, Mode: plan.Auto}); !errors.Is(err, plan.ErrPermission) {
			t.Error(err)
		}
	})
	h.expectUnhooked(t)
}

func TestPinnedOnlyLooks(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	want := h.attached(t)

	// As an Attach leaves it that is not done yet, or was killed.
	half := h.folder(4711).path
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(h.folder(h.index).programPin()); err != nil {
		t.Fatal(err) // outdated, which is not judged
	}
	want[0].SwitchedOff = nil // for which features would be read
	got, err := h.Pinned()
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("pinned (-want +got), error %v:\n%s", err, diff)
	}
	if _, err := os.Stat(half); err != nil {
		t.Errorf("what it only looked at has changed: %v", err)
	}
	h.traffic(t, 2)
	h.expectCounted(t)
}

func TestPinnedWhereNothingIs(t *testing.T) {
	h := newHost(t)
	if got, err := h.Pinned(); len(got) != 0 || err != nil {
		t.Errorf("pinned %+v, error %v", got, err)
	}
}
