// SPDX-License-Identifier: Apache-2.0

package reasons

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/bpffs"
)

const notMounted = v1alpha1.ReasonBPFFSNotMounted

func mount(t *testing.T, source, path, kind string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(source, path, kind, flags, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
}

func unmount(t *testing.T, path string) {
	t.Helper()
	if err := unix.Unmount(path, 0); err != nil {
		t.Fatal(err)
	}
}

// The interface is counted within a second after the file system is mounted.
func TestBPFFSMountedLate(t *testing.T) {
	path := t.TempDir()
	n := newNodeOn(t, path, auto)
	veth(n)
	if wait := n.pass(); wait >= time.Second {
		t.Errorf("the next pass is in %s", wait)
	}
	n.send(4)
	n.expect("", notMounted, 0)
	mount(t, "bpf", path, "bpf", 0)
	n.expect(native, "", 0)
	n.send(5)
	n.expect(native, "", 5)
}

// Every packet is counted once, also those that arrive while the pins are not visible.
func TestBPFFSUnmountedAndMountedAgain(t *testing.T) {
	elsewhere, path := bpffs.Mount(t), t.TempDir()
	n := newNodeOn(t, path, auto)
	veth(n)
	mount(t, elsewhere, path, "", unix.MS_BIND)
	n.expect(native, "", 0)
	for round := range int64(3) {
		n.send(1)
		n.expect(native, "", 6*round+1)
		n.send(2)
		unmount(t, path)
		n.expect("", notMounted, 6*round+1)
		n.send(3)
		n.expect("", notMounted, 6*round+1)
		mount(t, elsewhere, path, "", unix.MS_BIND)
		n.expect(native, "", 6*round+6)
	}
}

// With its last mount the file system is gone, with the programs. The totals continue when another one is mounted.
func TestAnotherBPFFSIsMounted(t *testing.T) {
	path := t.TempDir()
	n := newNodeOn(t, path, auto)
	veth(n)
	mount(t, "bpf", path, "bpf", 0)
	n.expect(native, "", 0)
	n.send(7)
	n.expect(native, "", 7)
	unmount(t, path)
	n.expect("", notMounted, 7)
	mount(t, "bpf", path, "bpf", 0)
	n.expect(native, "", 7)
	n.send(2)
	n.expect(native, "", 9)
}
