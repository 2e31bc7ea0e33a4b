// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// bootIDFile is the kernel's random ID of this boot (random(4)).
const bootIDFile = "/proc/sys/kernel/random/boot_id"

// PowerOff ends a node's life as a cut of the power does: its processes are killed, what is attached and pinned is
// gone, and eth0 with it. Only mgmt0 stays.
func (n *Node) PowerOff() error {
	if err := n.Kill(); err != nil {
		return err
	}
	if err := n.DeleteData(); err != nil {
		return err
	}
	if err := unix.Unmount(n.BPFFS, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", n.BPFFS, err)
	}
	return nil
}

// PowerOn begins the life of a node anew after PowerOff: an empty BPFFS, a new eth0, and another boot ID for all
// that Command starts.
func (n *Node) PowerOn() error {
	n.boots++
	// Its shape is that of the kernel's, a random UUID.
	id := fmt.Sprintf("00000000-0000-4000-8000-%06x%06x\n", n.index, n.boots)
	if err := os.WriteFile(n.bootIDPath(), []byte(id), 0o444); err != nil {
		return fmt.Errorf("give %s a boot ID: %w", n.Name, err)
	}
	return errors.Join(n.mountBPFFS(), n.AddData())
}

func (n *Node) bootIDPath() string {
	return filepath.Join(n.dir, "boot_id")
}

// Command returns a command that runs on the node. When ctx is done it is killed.
func (n *Node) Command(ctx context.Context, path string, args ...string) *Cmd {
	cmd := n.Netns.Command(ctx, path, args...)
	if n.boots > 0 {
		cmd.Prepare = n.enterBoot
	}
	return cmd
}

// enterBoot gives the calling thread a mount namespace in which the boot ID is the node's.
func (n *Node) enterBoot() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := unix.Mount(n.bootIDPath(), bootIDFile, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount the boot ID of %s: %w", n.Name, err)
	}
	return nil
}
