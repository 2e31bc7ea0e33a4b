// SPDX-License-Identifier: Apache-2.0

package dispatcher

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/agent/xdp"
)

// attached returns the program on the interface's hook, the zero value if there is none. The error wraps
// plan.ErrInterfaceGone if there is no such interface.
func attached(index int) (plan.Hook, error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		if isGone(index) {
			return plan.Hook{}, fmt.Errorf("%w: %w", plan.ErrInterfaceGone, err)
		}
		return plan.Hook{}, fmt.Errorf("read the hook: %w", err)
	}
	on := xdp.HookOf(l)
	if there := l.Attrs().Xdp; on.Mode == "" && there != nil && there.Attached {
		return plan.Hook{}, fmt.Errorf("%w: in a mode that cannot be shared", plan.ErrHookInUse)
	}
	return on, nil
}

func isGone(index int) bool {
	interfaces, err := net.Interfaces()
	return err == nil && !slices.ContainsFunc(interfaces, func(i net.Interface) bool { return i.Index == index })
}

// From include/uapi/linux/if_link.h.
const (
	flagIfNoexist  = 1 << 0 // XDP_FLAGS_UPDATE_IF_NOEXIST
	flagGeneric    = 1 << 1 // XDP_FLAGS_SKB_MODE
	flagNative     = 1 << 2 // XDP_FLAGS_DRV_MODE
	flagReplace    = 1 << 4 // XDP_FLAGS_REPLACE
	attrExpectedFD = 8      // IFLA_XDP_EXPECTED_FD
)

// errChanged is the error for a hook that another process has changed meanwhile. We have changed nothing then.
var errChanged = errors.New("another process has changed the hook")

// exchange replaces the program from by the program to, atomically; nil means no program. It returns errChanged if from is not
// attached. It uses rtnetlink and not a link, because other users of libxdp can only replace a program that is attached so.
//
// Errors wrap those of package plan, also if a driver refuses the first program in native mode: see
// xdp.AnotherVariantMayWork.
func exchange(index int, mode plan.Mode, from, to *ebpf.Program) error {
	flags, toFD := uint32(flagIfNoexist), int32(-1)
	if to != nil {
		toFD = int32(to.FD())
	}
	if from != nil {
		flags = flagReplace
	}
	switch mode {
	case plan.Native:
		flags |= flagNative
	case plan.Generic:
		flags |= flagGeneric
	default:
		return fmt.Errorf("no hook has mode %q", mode)
	}
	request := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(index)
	request.AddData(message)
	attr := nl.NewRtAttr(unix.IFLA_XDP|unix.NLA_F_NESTED, nil)
	attr.AddRtAttr(nl.IFLA_XDP_FD, nl.Uint32Attr(uint32(toFD)))
	attr.AddRtAttr(nl.IFLA_XDP_FLAGS, nl.Uint32Attr(flags))
	if from != nil {
		attr.AddRtAttr(attrExpectedFD, nl.Uint32Attr(uint32(from.FD())))
	}
	request.AddData(attr)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST):
		return unexpected(err, index, mode, from)
	case errors.Is(err, unix.EBUSY) && from == nil:
		return fmt.Errorf("%w: %w", errChanged, err) // another process attached a program first
	case errors.Is(err, unix.EBUSY):
		// The program is attached by a link. Only the owner of the link can replace it.
		return fmt.Errorf("%w: it is attached by a link, which cannot be shared: %w", plan.ErrHookInUse, err)
	case errors.Is(err, unix.EINVAL) && isGone(index):
		return fmt.Errorf("%w: %w", plan.ErrInterfaceGone, err)
	}
	return explainExchangeError(err, mode, from == nil)
}

// unexpected returns the cause of EEXIST. Before the kernel checks the hook, it refuses every change below an interface that has
// a program, also the removal of the last program (dev_xdp_attach of net/core/dev.c, since Linux 5.15).
func unexpected(err error, index int, mode plan.Mode, from *ebpf.Program) error {
	on, lookError := attached(index)
	var expected plan.Hook
	if from != nil {
		expected.Mode = mode
		var idError error
		expected.Program, idError = idOf(from)
		lookError = errors.Join(lookError, idError)
	}
	if lookError == nil && on == expected {
		return fmt.Errorf("%w: %w", plan.ErrUpperHasProgram, err)
	}
	return fmt.Errorf("%w: %w", errChanged, err)
}

// explainExchangeError wraps any other errno in an error of package plan. Drivers use various errnos to refuse the first program.
// They do not refuse a later one, because it needs nothing that the first one did not need.
func explainExchangeError(err error, mode plan.Mode, first bool) error {
	switch {
	case xdp.ClassifyErrno(err) != nil:
		return xdp.WrapErrno(err)
	case mode == plan.Native && first:
		return fmt.Errorf("%w: %w", plan.ErrNativeRefused, err)
	}
	return fmt.Errorf("exchange the program on the hook: %w", err)
}
