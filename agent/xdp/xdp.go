// Package xdp says in the words of package plan what the kernel tells of XDP, whether it was asked by rtnetlink or by
// bpf(2).
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

// HookOf returns what is on the interface's hook (IFLA_XDP): zero for nothing. Mode is "" for a program that was offloaded
// to the device, and Program is 0 too if there is one in another mode beside it.
func HookOf(l netlink.Link) plan.Hook {
	on := l.Attrs().Xdp
	if on == nil || !on.Attached {
		return plan.Hook{}
	}
	h := plan.Hook{Program: on.ProgId}
	switch on.AttachMode { // which are not the XDP_FLAGS_* that ask for a mode
	case nl.XDP_ATTACHED_DRV:
		h.Mode = plan.Native
	case nl.XDP_ATTACHED_SKB:
		h.Mode = plan.Generic
	}
	return h
}

// enotsupp is an errno of the kernel's own that some drivers let through (include/linux/errno.h).
const enotsupp = unix.Errno(524)

// meanings are what the errors of attaching and of exchanging a program mean wherever they come from (net/core/dev.c,
// dev_xdp_attach). All kernels from 5.10 to 7.2 agree.
var meanings = []struct{ errno, meaning error }{
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

// ClassifyErrno returns the error of package plan that the kernel's means, nil if it may mean anything.
func ClassifyErrno(err error) error {
	for _, m := range meanings {
		if errors.Is(err, m.errno) {
			return m.meaning
		}
	}
	return nil
}

// WrapErrno wraps the kernel's error in what it means, if that is known.
func WrapErrno(err error) error {
	if meaning := ClassifyErrno(err); meaning != nil {
		return fmt.Errorf("%w: %w", meaning, err)
	}
	return err
}

// AnotherVariantMayWork tells what lies with the driver, and may be cured by another variant of the program or by generic mode,
// from what lies with the hook or with us.
func AnotherVariantMayWork(err error) bool {
	for _, lasting := range []error{plan.ErrHookInUse, plan.ErrUpperHasProgram, plan.ErrInterfaceGone, plan.ErrPermission, plan.ErrKernelTooOld} {
		if errors.Is(err, lasting) {
			return false
		}
	}
	return true
}
