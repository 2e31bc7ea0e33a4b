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

// attached returns what is on the interface's hook: ID 0 if nothing is. The error wraps plan.ErrInterfaceGone if there
// is no such interface.
func attached(index int) (plan.Hook, error) {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		if isGone(index) {
			return plan.Hook{}, fmt.Errorf("%w: %w", plan.ErrInterfaceGone, err)
		}
		return plan.Hook{}, fmt.Errorf("look at the hook: %w", err)
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

// errChanged is a hook on which something else is by now. Nothing was changed then.
var errChanged = errors.New("the hook changes at the same time")

// exchange puts a program in the place of another, at once; nil is none. It fails with errChanged if that other one is
// not there. It is a message of rtnetlink, and not a link, since that is what others exchange it by.
//
// Errors wrap those of package plan. Those of a driver that refuses a first program natively do so too: see
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
		return fmt.Errorf("%w: %w", errChanged, err) // somebody came first, by whatever means
	case errors.Is(err, unix.EBUSY):
		// A link. Whoever holds that is the only one who can exchange its program.
		return fmt.Errorf("%w: it is attached by a link, which cannot be shared: %w", plan.ErrHookInUse, err)
	case errors.Is(err, unix.EINVAL) && isGone(index):
		return fmt.Errorf("%w: %w", plan.ErrInterfaceGone, err)
	}
	return explainExchangeError(err, mode, from == nil)
}

// unexpected tells apart why the kernel says EEXIST. Before it looks at the hook it refuses any change below an interface
// that has a program, also that the last one leaves (dev_xdp_attach of net/core/dev.c, since Linux 5.15).
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

// explainExchangeError says what any other errno means. Drivers use whichever they like to refuse the first program; the one after it
// has nothing that they had not accepted.
func explainExchangeError(err error, mode plan.Mode, first bool) error {
	switch {
	case xdp.ClassifyErrno(err) != nil:
		return xdp.WrapErrno(err)
	case mode == plan.Native && first:
		return fmt.Errorf("%w: %w", plan.ErrNativeRefused, err)
	}
	return fmt.Errorf("exchange the program on the hook: %w", err)
}
