// SPDX-License-Identifier: Apache-2.0

package netnscluster

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (linux/seccomp.h), on little-endian machines.
const (
	systemCall    = 0
	firstArgument = 16
)

// refuseBPF lets these commands of bpf(2) fail with the error, in this thread and in what it executes from now on, for
// good. It needs CAP_SYS_ADMIN.
func refuseBPF(commands []int, errno unix.Errno) error {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: systemCall, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_BPF, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
		bpf.LoadAbsolute{Off: firstArgument, Size: 4},
	}
	for _, command := range commands {
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(command), SkipTrue: 1},
			bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)})
	}
	raw, err := bpf.Assemble(append(program, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}))
	if err != nil {
		return fmt.Errorf("assemble the filter of system calls: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	set := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&set)), 0, 0)
	runtime.KeepAlive(filter)
	if err != nil {
		return fmt.Errorf("filter system calls: %w", err)
	}
	return nil
}
