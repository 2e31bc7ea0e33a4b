// SPDX-License-Identifier: Apache-2.0

// Package xdp translates what the kernel reports about XDP, by rtnetlink or by bpf(2), to the types and errors of package plan.
package xdp

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
)

// HookOf returns the program on the interface's hook (IFLA_XDP), the zero value if there is none. Mode is "" for a program
// that is offloaded to the device; Program is then 0 if a program in another mode is attached too.
func HookOf(l netlink.Link) plan.Hook {
	on := l.Attrs().Xdp
	if on == nil || !on.Attached {
		return plan.Hook{}
	}
	h := plan.Hook{Program: on.ProgId}
	switch on.AttachMode { // other constants than the XDP_FLAGS_* with which a mode is requested
	case nl.XDP_ATTACHED_DRV:
		h.Mode = plan.Native
	case nl.XDP_ATTACHED_SKB:
		h.Mode = plan.Generic
	}
	return h
}

// enotsupp is an internal errno of the kernel that some drivers return to user space (include/linux/errno.h).
const enotsupp = unix.Errno(524)

// errnoClasses are the errnos of attaching and of exchanging a program that have one meaning whatever the driver
// (net/core/dev.c, dev_xdp_attach). It is the same in all kernels from 5.10 to 7.2.
var errnoClasses = []struct{ errno, class error }{
	{unix.EBUSY, plan.ErrHookInUse},
	{unix.EEXIST, plan.ErrHookInUse}, // in the other mode
	{unix.EOPNOTSUPP, plan.ErrNativeUnsupported},
	{enotsupp, plan.ErrNativeUnsupported},
	{unix.ERANGE, plan.ErrMTUTooLarge},     // veth
	{unix.ENOSPC, plan.ErrNotEnoughQueues}, // veth, bnxt, ice
	{unix.ENODEV, plan.ErrInterfaceGone},
	{unix.ENOLINK, plan.ErrInterfaceGone}, // update of a link whose interface was deleted
	{unix.EPERM, plan.ErrPermission},
	{unix.EACCES, plan.ErrPermission},
	{unix.ENOMEM, plan.ErrOutOfMemory},
	{ebpf.ErrNotSupported, plan.ErrKernelTooOld},
}

// ClassifyErrno returns the error of package plan for the kernel's error, nil if the errno alone does not identify it.
func ClassifyErrno(err error) error {
	for _, c := range errnoClasses {
		if errors.Is(err, c.errno) {
			return c.class
		}
	}
	return nil
}

// WrapErrno wraps the kernel's error in the error that ClassifyErrno returns, if there is one.
func WrapErrno(err error) error {
	if class := ClassifyErrno(err); class != nil {
		return fmt.Errorf("%w: %w", class, err)
	}
	return err
}

// AnotherVariantMayWork reports whether another variant of the program, or generic mode, may be accepted after this error.
// It is false only for errors that do not depend on the program and the mode: the hook, the interface, the capabilities and
// the kernel. So it is true for every refusal by a driver, but also for errors that nothing is known about.
func AnotherVariantMayWork(err error) bool {
	for _, independent := range []error{plan.ErrHookInUse, plan.ErrUpperHasProgram, plan.ErrInterfaceGone, plan.ErrPermission, plan.ErrKernelTooOld} {
		if errors.Is(err, independent) {
			return false
		}
	}
	return true
}
