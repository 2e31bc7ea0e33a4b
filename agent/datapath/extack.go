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

// words hears what the kernel says when it refuses a link. A driver explains itself in its extended ack, which
// BPF_LINK_CREATE does not return; from Linux 6.6 on the kernel gives it to the tracepoint bpf_xdp_link_attach_failed.
// A netlink attach would return it, but a refusal that does not come a second time would leave a program attached
// that no link holds. To listen changes nothing, and wants no right that to count does not want as well. Where it
// cannot be done (an older kernel, lockdown=confidentiality) there are no words, and the reason is told from the errno
// and from what can be seen of the interface.
//
// The zero value has heard nothing and is ready to use. Its methods are called one after another.
type extackListener struct {
	tried bool
	said  *ebpf.Map // of one value, what was said last to this process; nil if it cannot be heard
	ear   link.Link
}

// longest is how much is heard of what is said, its end included. The kernel composes messages of up to 80 bytes
// (NETLINK_MAX_FMTMSG_LEN of include/linux/netlink.h); constant ones are not much longer.
const longest = 256

// during returns the error of try, and what the kernel said. Only when something was refused it begins to listen, for
// which it tries a second time.
func (w *extackListener) run(try func() error) (said string, err error) {
	if err = w.clear(); err == nil {
		err = try()
	}
	if err == nil || w.tried || !isErrno(err) {
		return w.heard(), err
	}
	w.tried = true
	if w.listen() != nil {
		return "", err
	}
	err = try()
	return w.heard(), err
}

func isErrno(err error) bool {
	_, ok := errors.AsType[syscall.Errno](err)
	return ok
}

func (w *extackListener) listen() (err error) {
	var namespace unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &namespace); err != nil {
		return err
	}
	said, err := ebpf.NewMap(&ebpf.MapSpec{Name: "xdp_words", Type: ebpf.Array, KeySize: 4, ValueSize: longest, MaxEntries: 1})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			said.Close()
		}
	}()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "xdp_words", Type: ebpf.RawTracepoint, License: "GPL",
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
			// bpf_probe_read_kernel_str(said, longest, message);
			asm.LoadMapValue(asm.R1, said.FD(), 0),
			asm.Mov.Imm(asm.R2, longest),
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
	ear, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "bpf_xdp_link_attach_failed", Program: program})
	if err != nil {
		return fmt.Errorf("listen to the kernel: %w", err)
	}
	w.said, w.ear = said, ear
	return nil
}

// kernelDevice is a device number as the kernel holds it (include/linux/kdev_t.h), not as stat(2) tells it.
func kernelDevice(dev uint64) int64 {
	return int64(unix.Major(dev))<<20 | int64(unix.Minor(dev))
}

func (w *extackListener) clear() error {
	if w.said == nil {
		return nil
	}
	return w.said.Put(uint32(0), make([]byte, longest))
}

func (w *extackListener) heard() string {
	said := make([]byte, longest)
	if w.said == nil || w.said.Lookup(uint32(0), &said) != nil {
		return ""
	}
	return unix.ByteSliceToString(said)
}

// Close stops listening.
func (w *extackListener) Close() error {
	if w.said == nil {
		return nil
	}
	err := errors.Join(w.ear.Close(), w.said.Close())
	*w = extackListener{}
	return err
}
