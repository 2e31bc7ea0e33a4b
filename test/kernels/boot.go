// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// emulator is in Debian's package qemu-system-x86.
const emulator = "qemu-system-x86_64"

// installEmulator installs it if need be.
func installEmulator(ctx context.Context, progress io.Writer) error {
	if _, err := exec.LookPath(emulator); err == nil {
		return nil
	}
	fmt.Fprintln(progress, "installing qemu-system-x86 with apt-get")
	for _, args := range [][]string{
		{"update", "-q"},
		{"install", "-y", "-q", "--no-install-recommends", "qemu-system-x86", "xz-utils"},
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("install qemu-system-x86 (it needs Debian and root): %w\n%s", err, out)
		}
	}
	return nil
}

// processor has all features except those that are slow to emulate: five-level page tables, and fast string instructions,
// which the kernel would prefer for copying.
const processor = "max,la57=off,erms=off,fsrm=off"

// accelerator emulates the processors of a guest one after another. With a thread for each, a processor may run code that another one
// is just changing, as the kernel does when it attaches programs and switches static keys: guests with Linux 6.12 and 6.18 panicked in
// int3 and by a double fault in kmem_cache_alloc. Two guests run at a time, so this costs little time.
const accelerator = "tcg,thread=single"

// settings of the kernel that save time, and change nothing that is tested.
const settings = "mitigations=off rcupdate.rcu_expedited=1 audit=0"

// guest is one run of an emulated machine.
type guest struct {
	kernel  kernel
	initrd  string // the root file system
	console string // a file for what the kernel says
	memory  string
	timeout time.Duration
	network []string   // the emulator's options
	files   []*os.File // that these options name: 4 and so on
	cpus    int
}

// cards is the network of the tests: a card as clouds have it, and a gateway that answers ARP. An XDP program is attached only
// where the host does not put frames together. The second card, for which it does, is connected to a tap device, the file 4.
var cards = []string{
	"-netdev", "user,id=net,restrict=on,ipv6=off",
	"-device", "virtio-net-pci,netdev=net,romfile=,mq=on,vectors=6,guest_tso4=off,guest_tso6=off,guest_ufo=off,guest_ecn=off,guest_csum=off",
	"-netdev", "tap,id=tap,fd=4",
	"-device", "virtio-net-pci,netdev=tap,romfile=",
}

// boot runs the guest to its end, and gives line after line of what it reports to each.
func (g guest) boot(ctx context.Context, each func(line string)) error {
	socket, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer socket.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, g.timeout, fmt.Errorf("it takes longer than %s", g.timeout))
	defer cancel()
	args := append([]string{
		"-machine", "q35", "-accel", accelerator, "-cpu", processor, "-smp", strconv.Itoa(g.cpus), "-m", g.memory,
		"-nodefaults", "-display", "none", "-no-reboot",
		"-serial", "file:" + g.console,
		"-add-fd", "fd=3,set=1", "-chardev", "file,id=report,path=/dev/fdset/1,append=on", "-serial", "chardev:report",
		"-kernel", g.kernel.image, "-initrd", g.initrd,
		"-append", "console=ttyS0 quiet panic=-1 rdinit=/init " + settings,
	}, g.network...)
	cmd := exec.CommandContext(ctx, emulator, args...)
	cmd.ExtraFiles = append([]*os.File{out}, g.files...)
	// PDEATHSIG comes when the thread that forked ends, not the process, see PR_SET_PDEATHSIG(2const). newTap ends threads.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return errors.Join(err, out.Close())
	}
	if err := out.Close(); err != nil {
		return err
	}
	lines := bufio.NewScanner(socket)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		each(lines.Text())
	}
	err = errors.Join(lines.Err(), cmd.Wait())
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", emulator, err, stderr.Bytes())
	}
	return nil
}
