// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// extackListener reads the kernel's message about an XDP link that could not be attached. A driver explains the refusal in
// its extended ack, which BPF_LINK_CREATE does not return; since Linux 6.6 the kernel passes it to the tracepoint
// bpf_xdp_link_attach_failed. A netlink attach would return it, but if it succeeded at the second attempt, it would leave
// a program attached that no link holds. Listening needs no other capabilities than attaching. If it is not possible (an
// older kernel, lockdown=confidentiality), the message is "", and the error is classified by the errno and the facts of the
// device.
//
// The zero value is ready to use. Its methods must not be called concurrently.
type extackListener struct {
	tried      bool      // whether start was called
	last       *ebpf.Map // one value, the last message for this process; nil if it does not listen
	tracepoint link.Link
}

// maxMessage is how many bytes of a message are read, including the final zero. The kernel formats messages of up to 80
// bytes (NETLINK_MAX_FMTMSG_LEN of include/linux/netlink.h); constant messages are not much longer.
const maxMessage = 256

// run calls attach and returns its error and the kernel's message. The listener starts only after the first error, and then
// run calls attach a second time.
func (l *extackListener) run(attach func() error) (message string, err error) {
	if err = l.clear(); err == nil {
		err = attach()
	}
	if err == nil || l.tried || !isErrno(err) {
		return l.message(), err
	}
	l.tried = true
	if l.start() != nil {
		return "", err
	}
	err = attach()
	return l.message(), err
}

func isErrno(err error) bool {
	_, ok := errors.AsType[syscall.Errno](err)
	return ok
}

// start attaches a program to the tracepoint that copies the messages for this process to a map.
func (l *extackListener) start() (err error) {
	var namespace unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &namespace); err != nil {
		return err
	}
	last, err := ebpf.NewMap(&ebpf.MapSpec{Name: "xdp_extack", Type: ebpf.Array, KeySize: 4, ValueSize: maxMessage, MaxEntries: 1})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			last.Close()
		}
	}()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "xdp_extack", Type: ebpf.RawTracepoint, License: "GPL",
		Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			// if (bpf_get_ns_current_pid_tgid(dev, ino, &{pid, tgid}, 8) || tgid != ours) return 0;
			asm.LoadImm(asm.R1, kernelDevice(namespace.Dev), asm.DWord),
			asm.LoadImm(asm.R2, int64(namespace.Ino), asm.DWord),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, -8),
			asm.Mov.Imm(asm.R4, 8),
			asm.FnGetNsCurrentPidTgid.Call(),
			asm.JNE.Imm(asm.R0, 0, "end"),
			asm.LoadMem(asm.R1, asm.RFP, -4, asm.Word),
			asm.JNE.Imm(asm.R1, int32(os.Getpid()), "end"),
			// bpf_probe_read_kernel_str(last, maxMessage, message);
			asm.LoadMapValue(asm.R1, last.FD(), 0),
			asm.Mov.Imm(asm.R2, maxMessage),
			asm.LoadMem(asm.R3, asm.R6, 0, asm.DWord),
			asm.FnProbeReadKernelStr.Call(),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("end"),
			asm.Return(),
		},
	})
	if err != nil {
		return err
	}
	defer program.Close() // the link holds it
	tracepoint, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "bpf_xdp_link_attach_failed", Program: program})
	if err != nil {
		return fmt.Errorf("attach to the tracepoint: %w", err)
	}
	l.last, l.tracepoint = last, tracepoint
	return nil
}

// kernelDevice converts a device number of stat(2) to the kernel's format (include/linux/kdev_t.h).
func kernelDevice(dev uint64) int64 {
	return int64(unix.Major(dev))<<20 | int64(unix.Minor(dev))
}

func (l *extackListener) clear() error {
	if l.last == nil {
		return nil
	}
	return l.last.Put(uint32(0), make([]byte, maxMessage))
}

func (l *extackListener) message() string {
	text := make([]byte, maxMessage)
	if l.last == nil || l.last.Lookup(uint32(0), &text) != nil {
		return ""
	}
	return unix.ByteSliceToString(text)
}

// Close stops listening.
func (l *extackListener) Close() error {
	if l.last == nil {
		return nil
	}
	err := errors.Join(l.tracepoint.Close(), l.last.Close())
	*l = extackListener{}
	return err
}
