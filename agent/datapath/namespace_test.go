// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/bpf"
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
	"github.com/xdp-operator/xdp-operator/test/util/bpffs"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

func TestNamespaceName(t *testing.T) {
	a, b := netns.New(t), netns.New(t)
	for what, name := range map[string]func() (string, error){"cookie or inode": namespaceName, "inode": namespaceInode} {
		in := func(n *netns.Namespace) (got string) {
			t.Helper()
			n.Do(func() {
				var err error
				if got, err = name(); err != nil {
					t.Fatal(err)
				}
			})
			return got
		}
		first, second := in(a), in(b)
		if first == second || in(a) != first {
			t.Errorf("%s: two network namespaces are %q and %q, and the first again %q", what, first, second, in(a))
		}
		if !regexp.MustCompile(`^[in][0-9]+$`).MatchString(first) { // not the index of an interface, and without the dot that bpffs does not allow
			t.Errorf("%s: the name is %q", what, first)
		}
	}
}

// newNeighbours returns two hosts that use one bpffs, and whose counted interfaces have the same index, as nodes of kind do.
func newNeighbours(t *testing.T) (a, b *host) {
	t.Helper()
	mount := bpffs.Mount(t)
	a, b = newHostOn(t, mount), newHostOn(t, mount)
	if a.index != b.index {
		t.Fatalf("the indexes are %d and %d", a.index, b.index)
	}
	return a, b
}

// pass does what an agent does in a pass in which nothing has changed, and expects that it finds only its own attachment.
func (h *host) pass(t *testing.T, want plan.Attachment) {
	t.Helper()
	if diff := cmp.Diff([]plan.Attachment{want}, h.attached(t)); diff != "" {
		t.Fatalf("attached (-want +got):\n%s", diff)
	}
	h.mustAttach(t, plan.Native)
	if hook := h.hook(t, h.index); hook.ProgId != want.Program {
		t.Fatalf("attached is %+v, the hook has %+v", want, hook)
	}
}

func TestNetworkNamespacesOnOneBPFFSAreIndependent(t *testing.T) {
	a, b := newNeighbours(t)
	a.mustAttach(t, plan.Native)
	a.traffic(t, 3)
	ofA := a.onlyAttached(t)
	if attached := b.attached(t); attached != nil {
		t.Fatalf("the other one's attachments: %+v", attached)
	}
	b.mustAttach(t, plan.Native)
	b.traffic(t, 5)
	ofB := b.onlyAttached(t)
	for range 3 {
		a.pass(t, ofA)
		b.pass(t, ofB)
		a.open(t) // a restart
		a.traffic(t, 2)
		b.open(t)
		b.traffic(t, 1)
	}
	a.expectCounted(t)
	b.expectCounted(t)
	programs := func(h *host) (list []plan.Program) {
		t.Helper()
		h.net.Do(func() {
			var err error
			if list, err = h.Programs(); err != nil {
				t.Fatal(err)
			}
		})
		return list
	}
	for h, own := range map[*host]plan.Attachment{a: ofA, b: ofB} {
		if list := programs(h); len(list) != 1 || list[0].Map != own.Map {
			t.Errorf("programs %+v, attached is %+v", list, own)
		}
		if pinned, err := h.Pinned(); err != nil || len(pinned) != 1 || pinned[0].Map != own.Map {
			t.Errorf("pinned %+v, error %v, attached is %+v", pinned, err, own)
		}
	}
	if err := a.Detach(ofB); err == nil {
		t.Error("the attachment of another network namespace was detached")
	}

	if err := a.Detach(ofA); err != nil {
		t.Fatal(err)
	}
	a.expectUnhooked(t)
	a.sent = traffic.Totals{}
	a.mustAttach(t, plan.Native)
	a.traffic(t, 1)
	a.expectCounted(t)
	if diff := cmp.Diff([]string{filepath.Dir(ofB.Pin)}, a.cleanup(t)); diff != "" {
		t.Errorf("left by the cleanup (-want +got):\n%s", diff)
	}
	a.expectUnhooked(t)
	b.pass(t, ofB)
	b.traffic(t, 4)
	b.expectCounted(t)
	if others := b.cleanup(t); others != nil {
		t.Errorf("left by the last cleanup: %q", others)
	}
	b.expectUnhooked(t)
	b.expectNothingPinned(t)
}

// An upgrade of one node to another layout does not concern the other node.
func TestLayoutOfAnotherNetworkNamespace(t *testing.T) {
	a, b := newNeighbours(t)
	for _, h := range []*host{a, b} {
		h.mustAttach(t, plan.Native)
		h.traffic(t, 2)
		h.sum(t)
	}
	before, ofB := a.onlyAttached(t), b.onlyAttached(t)
	a.upgrade(t)
	a.mustAttach(t, plan.Native)
	a.traffic(t, 3)
	a.sum(t)
	a.expectMoved(t, before)
	b.pass(t, ofB) // which does not know the new layout
	b.traffic(t, 3)
	b.expectCounted(t)

	// Also the folder of the earlier layout is left, whose counts may not be saved yet.
	want := []string{filepath.Dir(before.Pin), a.layoutPins(a.current())}
	if diff := cmp.Diff(want, b.cleanup(t)); diff != "" {
		t.Errorf("left by the cleanup (-want +got):\n%s", diff)
	}
	a.expectMoved(t, before)
	a.sum(t)
}

// as0 moves the folder of the counted interface to where versions before 0.1.0 had it.
func (h *host) as0(t *testing.T) (old string) {
	t.Helper()
	f := h.folder(h.index)
	old = filepath.Join(h.versionPins(bpf.Layout), strconv.Itoa(h.index))
	if err := errors.Join(os.Rename(f.path, old), os.Remove(filepath.Dir(f.path))); err != nil {
		t.Fatal(err)
	}
	return old
}

func TestFoldersOfEarlierVersionsAreAdopted(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(t *testing.T, h *host, old string)
		adopted bool                                           // it is in the folder of the network namespace then
		want    func(before plan.Attachment) []plan.Attachment // before is as if it had been there before
	}{
		"the program is attached": {
			change:  func(*testing.T, *host, string) {},
			adopted: true, want: func(a plan.Attachment) []plan.Attachment { return []plan.Attachment{a} },
		},
		"the interface is gone": {
			change:  func(t *testing.T, h *host, _ string) { h.net.Delete(t, nasty) },
			adopted: true, want: func(a plan.Attachment) []plan.Attachment { return []plan.Attachment{{Map: a.Map, Pin: a.Pin}} },
		},
		"the link was detached by hand": {
			change: func(t *testing.T, _ *host, old string) {
				if err := detachLink(filepath.Join(old, "link")); err != nil {
					t.Fatal(err)
				}
			},
			adopted: true, want: func(a plan.Attachment) []plan.Attachment { return []plan.Attachment{{Map: a.Map, Pin: a.Pin}} },
		},
		"there are counts only": {
			change: func(t *testing.T, h *host, old string) {
				if err := errors.Join(os.Remove(filepath.Join(old, "link")), os.Remove(filepath.Join(old, "program"))); err != nil {
					t.Fatal(err)
				}
				h.waitUnhooked(t, nil)
			},
			adopted: true, want: func(a plan.Attachment) []plan.Attachment { return []plan.Attachment{{Map: a.Map, Pin: a.Pin}} },
		},
		"the folder is empty": {
			change: func(t *testing.T, h *host, old string) {
				for _, pin := range []string{"link", "program", "counts"} {
					if err := os.Remove(filepath.Join(old, pin)); err != nil {
						t.Fatal(err)
					}
				}
			},
			want: func(plan.Attachment) []plan.Attachment { return nil },
		},
		"the counts are a foreign map": {
			change: func(t *testing.T, h *host, old string) {
				if err := os.Remove(filepath.Join(old, "counts")); err != nil {
					t.Fatal(err)
				}
				if err := someMap(t).Pin(filepath.Join(old, "counts")); err != nil {
					t.Fatal(err)
				}
			},
			want: func(plan.Attachment) []plan.Attachment { return nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.mustAttach(t, plan.Native)
			h.traffic(t, 3)
			h.expectCounted(t)
			before := h.onlyAttached(t)
			old := h.as0(t)
			tc.change(t, h, old)
			h.open(t)
			for range 2 {
				if diff := cmp.Diff(tc.want(before), h.attached(t)); diff != "" {
					t.Fatalf("attached (-want +got):\n%s", diff)
				}
			}
			if !tc.adopted {
				return
			}
			if tc.want(before)[0].Index != 0 {
				h.mustAttach(t, plan.Native)
				h.traffic(t, 2)
			}
			h.expectCounted(t)
			if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the old folder: %v", err)
			}
			if err := h.Detach(h.onlyAttached(t)); err != nil {
				t.Fatal(err)
			}
			h.expectNothingPinned(t)
		})
	}
}

func TestFoldersOfEarlierVersionsOfAnotherNetworkNamespaceAreLeft(t *testing.T) {
	a, b := newNeighbours(t)
	a.mustAttach(t, plan.Native)
	a.traffic(t, 3)
	before := a.onlyAttached(t)
	old := a.as0(t)
	b.mustAttach(t, plan.Native) // at the same index
	b.traffic(t, 2)
	ofB := b.onlyAttached(t)
	b.pass(t, ofB)
	if diff := cmp.Diff([]string{old}, b.cleanup(t)); diff != "" {
		t.Errorf("left by the cleanup (-want +got):\n%s", diff)
	}
	b.expectUnhooked(t)
	a.traffic(t, 3)
	if diff := cmp.Diff(before, a.onlyAttached(t)); diff != "" {
		t.Errorf("adopted otherwise than left (-left +adopted):\n%s", diff)
	}
	a.expectCounted(t)
}

// The counts of the earlier attachment are not saved yet, so the folder of the namespace is in the way.
func TestAdoptionWaitsForTheFolderOfItsIndex(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	before := h.onlyAttached(t)
	old := h.as0(t)
	h.net.Do(func() { // of an interface with this index that is gone
		counts, err := h.makeCounts(h.folder(h.index))
		if err != nil {
			t.Fatal(err)
		}
		counts.Close()
	})
	gone := h.onlyAttached(t)
	if gone.Index != 0 || gone.Map == before.Map {
		t.Fatalf("attached: %+v", gone)
	}
	if _, err := os.Stat(old); err != nil {
		t.Fatalf("the old folder: %v", err)
	}
	if err := h.Detach(gone); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, h.onlyAttached(t)); diff != "" {
		t.Errorf("adopted otherwise than left (-left +adopted):\n%s", diff)
	}
}

func TestCleanupRemovesNetworkNamespacesThatAreGone(t *testing.T) {
	mount := bpffs.Mount(t)
	h := newHostOn(t, mount)
	h.mustAttach(t, plan.Native)
	gone := newHostOn(t, mount)
	gone.mustAttach(t, plan.Native)
	pin := gone.onlyAttached(t).Pin
	gone.send.Close() // the socket would keep the namespace
	gone.net.File().Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if l, err := (folder{path: pin}).link(); err == nil && l.index == 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the link is attached to %+v, error %v", l, err)
		}
	}
	h.onlyAttached(t) // a pass leaves it: an interface of a namespace that exists may be gone, with counts that are not saved
	if _, err := os.Stat(filepath.Join(pin, "counts")); err != nil {
		t.Error(err)
	}
	if others := h.cleanup(t); others != nil {
		t.Errorf("left: %q", others)
	}
	h.expectUnhooked(t)
	h.expectNothingPinned(t)
}

// An interface that is moved takes its program along. Its agent detaches it. A cleanup of the namespace that it was moved to does
// so too, because it is attached there.
func TestCleanupDetachesFromInterfacesThatWereMovedHere(t *testing.T) {
	a, b := newNeighbours(t)
	a.mustAttach(t, plan.Native)
	ofA := a.onlyAttached(t)
	a.net.Rename(t, nasty, "moved")
	a.net.Do(func() {
		l, err := netlink.LinkByName("moved")
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetNsFd(l, int(b.net.File().Fd())); err != nil {
			t.Fatal(err)
		}
	})
	moved := func() (on *netlink.LinkXdp) {
		t.Helper()
		b.net.Do(func() {
			l, err := netlink.LinkByName("moved")
			if err != nil {
				t.Fatal(err)
			}
			on = l.Attrs().Xdp
		})
		return on
	}
	if attached := b.attached(t); attached != nil || moved() == nil || moved().ProgId != ofA.Program {
		t.Fatalf("attached %+v, on the hook %+v, before %+v", attached, moved(), ofA)
	}
	if others := b.cleanup(t); others != nil {
		t.Errorf("left: %q", others)
	}
	if on := moved(); on != nil && on.Attached {
		t.Errorf("on the hook is %+v", on)
	}
	b.expectNothingPinned(t)
}

// sharedByHand pins a program that uses the counts of a folder as one that a dispatcher calls, which no kernel has to allow.
func (h *host) sharedByHand(t *testing.T, counts *ebpf.Map) {
	t.Helper()
	program, err := bpf.NewProgram(h.spec, counts)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	dispatcher := filepath.Join(h.bpffs, "xdp", "dispatch-"+strconv.Itoa(h.index)+"-4711")
	if err := os.MkdirAll(dispatcher, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := program.Pin(filepath.Join(dispatcher, "prog0-prog")); err != nil {
		t.Fatal(err)
	}
}

// The folder of a shared hook has no link. It is another network namespace's while a dispatcher calls the program.
func TestSharedHooksOfAnotherNetworkNamespaceAreLeft(t *testing.T) {
	a, b := newNeighbours(t)
	for name, path := range map[string]string{
		"of this version":       a.folder(a.index).path,
		"of an earlier version": filepath.Join(a.versionPins(bpf.Layout), strconv.Itoa(a.index)),
	} {
		t.Run(name, func(t *testing.T) {
			counts, err := a.makeCounts(folder{path: path})
			if err != nil {
				t.Fatal(err)
			}
			defer counts.Close()
			a.sharedByHand(t, counts)
			if attached := b.attached(t); attached != nil {
				t.Errorf("attached: %+v", attached)
			}
			if others := b.cleanup(t); len(others) != 1 {
				t.Errorf("left by the cleanup: %q", others)
			}
			if _, err := os.Stat(filepath.Join(path, "counts")); err != nil {
				t.Error(err)
			}
			if err := os.RemoveAll(filepath.Join(a.bpffs, "xdp")); err != nil {
				t.Fatal(err)
			}
			if others := b.cleanup(t); others != nil {
				t.Errorf("left by the cleanup when nothing calls the program: %q", others)
			}
			b.expectNothingPinned(t)
		})
	}
}

// Like TestASharedHookOrWhyNot, with two network namespaces: the dispatchers have other IDs, and each namespace finds its own on
// its hook.
func TestSharedHooksOfTwoNetworkNamespaces(t *testing.T) {
	a, b := newNeighbours(t)
	for _, h := range []*host{a, b} {
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
	}
	for range 2 {
		for _, h := range []*host{a, b} {
			if attached := h.onlyAttached(t); !attached.ViaDispatcher || attached.Index != h.index || attached.Program != h.hook(t, h.index).ProgId {
				t.Errorf("attached is %+v, the hook has %+v", attached, h.hook(t, h.index))
			}
			h.traffic(t, 3)
			h.expectCounted(t)
			h.open(t)
		}
	}
	if others := a.cleanup(t); len(others) != 1 {
		t.Errorf("left by the cleanup: %q", others)
	}
	a.expectUnhooked(t)
	b.traffic(t, 3)
	b.expectCounted(t)
	b.cleanup(t)
	b.expectUnhooked(t)
	b.expectNothingShared(t)
}
