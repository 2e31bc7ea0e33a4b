package datapath

import (
	"errors"
	"fmt"
	"os"
	"regexp"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/agent/xdp"
)

// extackPatterns are what the words of an extended ack mean: those of net/core/dev.c and of the drivers' ndo_bpf, up to Linux
// 7.2. The first that fits counts: that an MTU is "not supported" is about the MTU.
var extackPatterns = []struct {
	words   *regexp.Regexp
	meaning error
}{
	{regexp.MustCompile(`upper device already has`), plan.ErrUpperHasProgram},
	{regexp.MustCompile(`(?i)slave (device )?has xdp program`), plan.ErrMemberHasProgram},
	{regexp.MustCompile(`(?i)active bpf xdp link|active xdp program|already attached|can't be active at the same time`), plan.ErrHookInUse},
	{regexp.MustCompile(`(?i)\blro\b|gro_hw|hw-gro|csum|data-split|\bhds\b|memory provider|\brsc\b`), plan.ErrOffloadConflict},
	{regexp.MustCompile(`(?i)\bmtu\b|jumbo|frame size|buffer size`), plan.ErrMTUTooLarge},
	{regexp.MustCompile(`(?i)queue|\brings?\b|channel`), plan.ErrNotEnoughQueues},
	{regexp.MustCompile(`(?i)not support|no native|unsupported|any_header_sg`), plan.ErrNativeUnsupported},
}

// pageful is about the largest MTU that a frame in one page of 4 KiB leaves room for: what drivers allow without
// fragments lies between 1500 and 3506.
const pageful = 1500

// meaning returns what a refusal of a native attach, or of a generic one, means. said is what the kernel said, "" if
// nothing was heard; s is what can be seen of the interface, and above whether an interface above it has a program.
func classifyAttachError(err error, said string, native bool, s deviceFacts, hook plan.Hook, above bool) error {
	told := xdp.ClassifyErrno(err)
	for _, w := range extackPatterns {
		if w.words.MatchString(said) {
			return w.meaning
		}
	}
	switch {
	case errors.Is(told, plan.ErrHookInUse) && hook.Program == 0 && above:
		return plan.ErrUpperHasProgram
	case !native || errors.Is(told, plan.ErrNotEnoughQueues) || errors.Is(told, plan.ErrMTUTooLarge) || told != nil && !xdp.AnotherVariantMayWork(told):
		return told
	}
	// The errnos that drivers use for anything, and not a word: what is unusual about the interface will be it.
	switch {
	case said != "":
	case len(s.Members) > 0:
		return plan.ErrMemberHasProgram
	case s.Announce == cannot:
		return plan.ErrNativeUnsupported
	case s.Announce == "" && errors.Is(told, plan.ErrNativeUnsupported) && len(s.Offloads) == 0:
		return told
	case len(s.Offloads) > 0:
		return plan.ErrOffloadConflict
	case s.MTU > pageful:
		return plan.ErrMTUTooLarge
	case s.Combined > s.Most/2:
		return plan.ErrNotEnoughQueues
	}
	if told == nil {
		return plan.ErrNativeRefused
	}
	return told
}

// refusal explains why the kernel did not make the link.
func explainAttachError(err error, said string, index int, native bool) error {
	all, listed := netlink.LinkList()
	var self netlink.Link
	for _, l := range all {
		if l.Attrs().Index == index {
			self = l
		}
	}
	if self == nil {
		// The kernel says EINVAL for an unknown index as for much else.
		if listed == nil && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV)) {
			return fmt.Errorf("%w: %w", plan.ErrInterfaceGone, err)
		}
		return xdp.WrapErrno(err)
	}
	upper := upperWithProgram(index, all)
	means := classifyAttachError(err, said, native, readDeviceFacts(index), xdp.HookOf(self), upper != nil)
	if said != "" {
		err = fmt.Errorf("the kernel says %q: %w", said, err)
	}
	switch {
	case means == nil:
		return err
	case errors.Is(means, plan.ErrUpperHasProgram) && upper != nil:
		return fmt.Errorf("%w: %s has %s: %w", means, upper.Attrs().Name, describe(xdp.HookOf(upper)), err)
	case errors.Is(means, plan.ErrHookInUse):
		return busy(xdp.HookOf(self), err)
	default:
		return fmt.Errorf("%w: %w", means, err)
	}
}

// nameUpper adds to the error that an interface above has a program which one that is.
func nameUpper(err error, index int) error {
	all, _ := netlink.LinkList()
	if upper := upperWithProgram(index, all); upper != nil {
		return fmt.Errorf("%s has %s: %w", upper.Attrs().Name, describe(xdp.HookOf(upper)), err)
	}
	return err
}

// busy tells whose the hook is, as far as it can be found out.
func busy(hook plan.Hook, err error) error {
	if hook.Program == 0 { // it was let go in between
		return fmt.Errorf("%w: %w", plan.ErrHookInUse, err)
	}
	return fmt.Errorf("%w, %s: %w", plan.ErrHookInUse, describe(hook), err)
}

// describe names a program: its name and tag where we may ask for them, which wants CAP_SYS_ADMIN.
func describe(hook plan.Hook) string {
	program, err := ebpf.NewProgramFromID(ebpf.ProgramID(hook.Program))
	if err != nil {
		return fmt.Sprintf("id %d", hook.Program)
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return fmt.Sprintf("id %d", hook.Program)
	}
	return fmt.Sprintf("id %d name %q tag %s", hook.Program, info.Name, info.Tag)
}

// permission marks the errors of making and loading that lie with our rights or with the kernel's memory; the other
// errnos mean something else there than they do for a link.
func permission(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission): // EPERM and EACCES
		return fmt.Errorf("%w: %w", plan.ErrPermission, err)
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("%w: %w", plan.ErrOutOfMemory, err)
	default:
		return err
	}
}
