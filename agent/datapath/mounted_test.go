// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/util/bpffs"
)

// expectNotMounted calls all methods that use pins. a is an attachment.
func (h *host) expectNotMounted(t *testing.T, a plan.Attachment) {
	t.Helper()
	h.net.Do(func() {
		for name, call := range map[string]func() error{
			"Attached": func() error { _, err := h.Attached(); return err },
			"Attach":   func() error { return h.Attach(plan.Attachment{Index: h.index, Name: nasty, Mode: plan.Auto}) },
			"Attach by a dispatcher": func() error {
				return h.Attach(plan.Attachment{Index: h.index, Name: nasty, Mode: plan.Auto, ViaDispatcher: true})
			},
			"Detach":   func() error { return h.Detach(a) },
			"Read":     func() error { _, err := h.Read(); return err },
			"Programs": func() error { _, err := h.Programs(); return err },
			"Pinned":   func() error { _, err := h.Pinned(); return err },
			"Cleanup":  func() error { _, err := h.Cleanup(); return err },
		} {
			if err := call(); !errors.Is(err, plan.ErrBPFFSNotMounted) || errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func mountBPFFS(t *testing.T, path string) {
	t.Helper()
	if err := unix.Mount("bpf", path, "bpf", 0, "mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
}

func TestBPFFSMountedLate(t *testing.T) {
	for name, path := range map[string]string{"a folder": t.TempDir(), "nothing": filepath.Join(t.TempDir(), "none")} {
		t.Run(name, func(t *testing.T) {
			h := newHostOn(t, path)
			h.expectNotMounted(t, plan.Attachment{Pin: h.folder(h.index).path})
			if entries, err := os.ReadDir(path); len(entries) != 0 {
				t.Errorf("in its place are %v, error %v", entries, err)
			}
			h.expectUnhooked(t)
			if tag := h.ProgramTag(); len(tag) != 16 { // what an agent reports
				t.Errorf("the tag is %q", tag)
			}
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
			mountBPFFS(t, path)
			if attached := h.attached(t); attached != nil {
				t.Errorf("attached: %+v", attached)
			}
			h.mustAttach(t, plan.Auto)
			h.traffic(t, 3)
			h.expectCounted(t)
		})
	}
}

// What is attached stays attached and counts while the file system is not visible, if it exists.
func TestBPFFSNotVisibleForAWhile(t *testing.T) {
	for name, hide := range map[string]func(t *testing.T, mount, path string) (show func() error){
		"it is mounted elsewhere too": func(t *testing.T, mount, path string) func() error {
			if err := unix.Unmount(path, 0); err != nil {
				t.Fatal(err)
			}
			return func() error { return unix.Mount(mount, path, "", unix.MS_BIND, "") }
		},
		"another file system is mounted over it": func(t *testing.T, _, path string) func() error {
			if err := unix.Mount("tmpfs", path, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			return func() error { return unix.Unmount(path, 0) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			mount, path := bpffs.Mount(t), t.TempDir()
			if err := unix.Mount(mount, path, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
			h := newHostOn(t, path)
			h.mustAttach(t, plan.Native)
			h.traffic(t, 3)
			h.expectCounted(t)
			before := h.onlyAttached(t)

			show := hide(t, mount, path)
			h.expectNotMounted(t, before)
			h.traffic(t, 4)
			if hook := h.hook(t, h.index); hook.ProgId != before.Program {
				t.Errorf("attached was %+v, the hook has %+v", before, hook)
			}
			if err := show(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, h.onlyAttached(t)); diff != "" {
				t.Errorf("attached otherwise (-before +after):\n%s", diff)
			}
			h.mustAttach(t, plan.Native)
			h.traffic(t, 2)
			h.expectCounted(t)
		})
	}
}

// What is missing because the file system has disappeared in the middle of a call must not look as if it were gone.
func TestBPFFSDisappearsDuringACall(t *testing.T) {
	for name, result := range map[string]error{"nothing was found": nil, "a pin was missing": os.ErrNotExist} {
		t.Run(name, func(t *testing.T) {
			mount, path := bpffs.Mount(t), t.TempDir()
			if err := unix.Mount(mount, path, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			h := newHostOn(t, path)
			h.mustAttach(t, plan.Native)
			before := h.onlyAttached(t)
			found, err := listMounted(h.Datapath, func() ([]string, error) {
				if err := unix.Unmount(path, 0); err != nil {
					t.Fatal(err)
				}
				return []string{"a part"}, result
			})
			if found != nil || !errors.Is(err, plan.ErrBPFFSNotMounted) {
				t.Errorf("found %v, error %v", found, err)
			}
			if err := h.removeIncomplete(h.folder(h.index)); !errors.Is(err, plan.ErrBPFFSNotMounted) {
				t.Errorf("remove a folder that seems incomplete: %v", err)
			}
			if hook := h.hook(t, h.index); hook.ProgId != before.Program {
				t.Errorf("attached was %+v, the hook has %+v", before, hook)
			}
		})
	}
}

// With its last mount a file system is gone, and with it all pins and what they held.
func TestAnotherBPFFSAtTheSamePath(t *testing.T) {
	path := t.TempDir()
	mountBPFFS(t, path)
	h := newHostOn(t, path)
	h.mustAttach(t, plan.Native)
	h.traffic(t, 3)
	h.expectCounted(t)
	before := h.onlyAttached(t)
	if err := unix.Unmount(path, 0); err != nil {
		t.Fatal(err)
	}
	h.expectNotMounted(t, before)
	h.waitUnhooked(t, nil)
	mountBPFFS(t, path)
	if readings, err := h.Read(); len(readings) != 0 || err != nil || len(h.tables) != 0 {
		t.Errorf("readings %v, error %v, %d tables are mapped", readings, err, len(h.tables))
	}
	h.sent = traffic.Totals{}
	h.mustAttach(t, plan.Native)
	if a := h.onlyAttached(t); a.Map <= before.Map {
		t.Errorf("map %d after map %d", a.Map, before.Map)
	}
	h.traffic(t, 2)
	h.expectCounted(t)
}

func TestNewestMap(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	first := h.onlyAttached(t).Map
	newest, err := h.NewestMap()
	if err != nil || newest.Boot != bootID || newest.ID <= first {
		t.Errorf("the newest is %v, error %v, and there is map %d", newest, err, first)
	}
	if err := h.Detach(h.onlyAttached(t)); err != nil {
		t.Fatal(err)
	}
	h.mustAttach(t, plan.Native)
	if second := h.onlyAttached(t).Map; second <= newest.ID {
		t.Errorf("map %d was made after %v", second, newest)
	}
}
