// SPDX-License-Identifier: Apache-2.0

// Package bpffs gives a test a BPF file system of its own.
package bpffs

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Mount mounts a new bpffs for the duration of the test and returns where. What is pinned there ends with it.
func Mount(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err != nil {
		t.Fatalf("mount a bpffs at %s (needs root): %v", dir, err)
	}
	t.Cleanup(func() {
		// Detached, so that an open file in it does not keep the directory from being removed.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}
