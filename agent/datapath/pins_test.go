// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
)

func TestHalfMadeFolders(t *testing.T) {
	for name, test := range map[string]struct {
		remove []string // of the pins of a whole attachment
		want   func(whole plan.Attachment) []plan.Attachment
		attach error
	}{
		"killed after the folder was made": {
			remove: []string{"link", "program", "counts"},
			want:   func(plan.Attachment) []plan.Attachment { return nil },
		},
		"killed after the map was pinned": {
			remove: []string{"link", "program"},
			want:   func(a plan.Attachment) []plan.Attachment { return []plan.Attachment{{Map: a.Map, Pin: a.Pin}} },
			attach: plan.ErrPending,
		},
		"killed after the program was pinned, or the link unpinned by hand": {
			remove: []string{"link"},
			want:   func(a plan.Attachment) []plan.Attachment { return []plan.Attachment{{Map: a.Map, Pin: a.Pin}} },
			attach: plan.ErrPending,
		},
		"the program unpinned by hand": {
			remove: []string{"program"},
			want: func(a plan.Attachment) []plan.Attachment {
				a.Outdated = true
				return []plan.Attachment{a}
			},
		},
		"the map unpinned by hand": {
			remove: []string{"counts"},
			want:   func(plan.Attachment) []plan.Attachment { return nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.mustAttach(t, plan.Native)
			whole := h.onlyAttached(t)
			for _, pin := range test.remove {
				if err := os.Remove(filepath.Join(whole.Pin, pin)); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(test.want(whole), h.attached(t)); diff != "" {
				t.Fatalf("attached (-want +got):\n%s", diff)
			}
			if _, err := h.Read(); err != nil {
				t.Fatal(err)
			}
			h.waitUnhooked(t, test.want(whole))
			if err := h.attach(h.index, plan.Native); !errors.Is(err, test.attach) {
				t.Fatal(err)
			}
			for _, a := range h.attached(t) {
				if test.attach == nil && (a.Index != h.index || a.Outdated) {
					t.Errorf("attached: %+v", a)
				}
				if err := h.Detach(a); err != nil {
					t.Fatal(err)
				}
			}
			h.mustAttach(t, plan.Native)
			h.traffic(t, 2)
			h.expectCounted(t)
		})
	}
}

func TestForeignPinsStopNobody(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	want := h.attached(t)
	pin := func(name string, object interface{ Pin(string) error }) {
		t.Helper()
		path := filepath.Join(h.layoutPins(h.current()), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := object.Pin(path); err != nil {
			t.Fatal(err)
		}
	}
	pin("notes/counts", someMap(t))
	pin("0/counts", someMap(t))
	pin("900/counts", passes(t))
	pin("901/counts", someMap(t))
	pin("902", someMap(t))
	if diff := cmp.Diff(want, h.attached(t)); diff != "" {
		t.Errorf("attached (-want +got):\n%s", diff)
	}
	h.traffic(t, 2)
	h.expectCounted(t)
	if _, err := os.Stat(filepath.Join(h.layoutPins(h.current()), "901/counts")); err != nil {
		t.Errorf("what is not ours was touched: %v", err)
	}
}

// The kernel calls a folder in the place of a pin a matter of rights, which it is not.
func TestFolderInThePlaceOfAPin(t *testing.T) {
	for _, pin := range []string{"link", "program"} {
		t.Run(pin, func(t *testing.T) {
			h := newHost(t)
			h.mustAttach(t, plan.Native)
			h.traffic(t, 2)
			h.expectCounted(t)
			path := filepath.Join(h.folder(h.index).path, pin)
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
				t.Fatal(err)
			}
			if pin == "link" {
				h.waitUnhooked(t, h.attached(t))
				if a := h.onlyAttached(t); a.Index != 0 {
					t.Errorf("attached: %+v", a)
				}
			} else if a := h.onlyAttached(t); a.Index != h.index || !a.Outdated {
				t.Errorf("attached: %+v", a)
			}
			h.expectCounted(t)
			if err := h.Detach(h.onlyAttached(t)); err != nil {
				t.Fatal(err)
			}
			h.expectNothingPinned(t)
			h.sent = traffic.Totals{}
			h.mustAttach(t, plan.Native)
			h.traffic(t, 2)
			h.expectCounted(t)
		})
	}
}

func TestForeignPinInTheWay(t *testing.T) {
	h := newHost(t)
	if err := os.MkdirAll(h.folder(h.index).path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := someMap(t).Pin(h.folder(h.index).counts()); err != nil {
		t.Fatal(err)
	}
	if err := h.attach(h.index, plan.Auto); !errors.Is(err, errForeign) {
		t.Errorf("attached over it: %v", err)
	}
	h.expectUnhooked(t)
}

func TestCleanup(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	bridge := h.net.Bridge(t, "br0")
	if err := h.attach(bridge, plan.Auto); err != nil {
		t.Fatal(err)
	}
	// As if one were of another layout, and one half made.
	old := filepath.Join(h.root(), "v0")
	if err := os.Rename(h.layoutPins(h.current()), old); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(old, strconv.Itoa(bridge), "program")); err != nil {
		t.Fatal(err)
	}
	if err := someMap(t).Pin(filepath.Join(old, "a_map")); err != nil {
		t.Fatal(err)
	}
	if err := someMap(t).Pin(filepath.Join(h.bpffs, "somebody_elses")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if others := h.cleanup(t); others != nil {
			t.Errorf("left to other network namespaces: %q", others)
		}
	}
	h.expectUnhooked(t)
	if hook := h.hook(t, bridge); hook.Attached {
		t.Errorf("the other layout's program is still attached: %+v", hook)
	}
	if err := os.Remove(filepath.Join(h.bpffs, "somebody_elses")); err != nil {
		t.Error(err)
	}
	h.expectNothingPinned(t)
}

func TestDetachedMapsAreNotHeld(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	a := h.onlyAttached(t)
	h.onlyReading(t)
	if err := h.Detach(a); err != nil {
		t.Fatal(err)
	}
	if readings, err := h.Read(); err != nil || len(readings) != 0 {
		t.Fatalf("readings %v, error %v", readings, err)
	}
	if len(h.tables) != 0 {
		t.Errorf("still mapped: %d tables", len(h.tables))
	}
}
