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
	xdp := l.Attrs().Xdp
	if xdp == nil || !xdp.Attached {
		return plan.Hook{}, nil
	}
	switch xdp.AttachMode {
	case nl.XDP_ATTACHED_DRV:
		return plan.Hook{Program: xdp.ProgId, Mode: plan.Native}, nil
	case nl.XDP_ATTACHED_SKB:
		return plan.Hook{Program: xdp.ProgId, Mode: plan.Generic}, nil
	}
	return plan.Hook{}, fmt.Errorf("%w: in a mode that cannot be shared", plan.ErrHookInUse)
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
	xdp := nl.NewRtAttr(unix.IFLA_XDP|unix.NLA_F_NESTED, nil)
	xdp.AddRtAttr(nl.IFLA_XDP_FD, nl.Uint32Attr(uint32(toFD)))
	xdp.AddRtAttr(nl.IFLA_XDP_FLAGS, nl.Uint32Attr(flags))
	if from != nil {
		xdp.AddRtAttr(attrExpectedFD, nl.Uint32Attr(uint32(from.FD())))
	}
	request.AddData(xdp)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("%w: %w", errChanged, err)
	case errors.Is(err, unix.EBUSY):
		// A link. Whoever holds that is the only one who can exchange its program.
		return fmt.Errorf("%w: it is attached by a link, which cannot be shared: %w", plan.ErrHookInUse, err)
	case errors.Is(err, unix.EINVAL) && isGone(index), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: %w", plan.ErrInterfaceGone, err)
	case errors.Is(err, unix.ERANGE):
		return fmt.Errorf("%w: %w", plan.ErrMTUTooLarge, err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, errNotSupported):
		return fmt.Errorf("%w: %w", plan.ErrNativeUnsupported, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %w", plan.ErrPermission, err)
	}
	return fmt.Errorf("exchange the program on the hook: %w", err)
}

// errNotSupported is an errno of the kernel's own that some drivers let through (include/linux/errno.h).
const errNotSupported = unix.Errno(524)
