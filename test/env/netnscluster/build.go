// SPDX-License-Identifier: Apache-2.0

package netnscluster

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
)

// Build says how a program differs from the one that Prepare has built and from how it runs by default. The zero
// value is no difference.
type Build struct {
	Path string   // the executable; empty: that of Prepare
	Env  []string // added to the environment, "NAME=value"
	// Without lists capabilities (capabilities(7)) that an agent, though root, does not get.
	Without []int
	// NoMemoryFor lists commands of bpf(2), as unix.BPF_MAP_CREATE, for which the kernel has no memory when an agent
	// asks: it gets ENOMEM.
	NoMemoryFor []int
}

func (b Build) apply(cmd *exec.Cmd) {
	cmd.Env = append(os.Environ(), b.Env...)
}

func (b Build) confine(cmd *sandbox.Cmd) {
	if len(b.Without) == 0 && len(b.NoMemoryFor) == 0 {
		return
	}
	before := cmd.Prepare
	cmd.Prepare = func() error {
		if before != nil {
			if err := before(); err != nil {
				return err
			}
		}
		// Of this thread: what it executes as root gets what its bounding set holds.
		for _, capability := range b.Without {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(capability), 0, 0, 0); err != nil {
				return fmt.Errorf("drop capability %d: %w", capability, err)
			}
		}
		if len(b.NoMemoryFor) == 0 {
			return nil
		}
		return refuseBPF(b.NoMemoryFor, unix.ENOMEM)
	}
}
