// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"os"

	"github.com/prometheus/procfs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tempDir is the TMPDIR of the inside. It is in memory.
const tempDir = "/run/tmp"

// furnish makes the fresh namespaces of this process a place to live in.
func furnish() error {
	// What is mounted from here on is not seen outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := unmountBPFFS(); err != nil {
		return err
	}
	for _, m := range []struct{ kind, dir string }{
		{"proc", "/proc"},
		// All of /run, so that /run/netns can be made without making it on the machine, and so that no daemon of
		// the machine can be reached by its socket.
		{"tmpfs", "/run"},
		// Pins end with the mount, and those of the machine are safe.
		{"bpf", "/sys/fs/bpf"},
	} {
		err := unix.Mount(m.kind, m.dir, m.kind, 0, "")
		if errors.Is(err, unix.ENOENT) && m.kind == "bpf" {
			continue // a kernel without BPF; what needs it will say so
		}
		if err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.dir, err)
		}
	}
	if err := os.Mkdir(netnsDir, 0o755); err != nil {
		return err
	}
	// Temporary files end with the sandbox too. Not by a mount on /tmp: what the outside has made may lie there.
	if err := errors.Join(os.Mkdir(tempDir, 0o777|os.ModeSticky), os.Setenv("TMPDIR", tempDir)); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// unmountBPFFS removes every bpffs that is mounted from this mount namespace. A bpffs lives as long as it is mounted anywhere,
// and with it the programs attached by its pins: those of a test outside would stay attached after the test has unmounted it.
func unmountBPFFS() error {
	mounts, err := procfs.GetMounts()
	if err != nil {
		return fmt.Errorf("list the mounts: %w", err)
	}
	for _, m := range mounts {
		if m.FSType != "bpf" {
			continue
		}
		// EINVAL: another mount at a directory above hides it.
		if err := unix.Unmount(m.MountPoint, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", m.MountPoint, err)
		}
	}
	return nil
}
