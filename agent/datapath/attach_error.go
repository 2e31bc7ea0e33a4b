// SPDX-License-Identifier: Apache-2.0

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

// extackPatterns maps the texts of extended acks to errors of package plan: those of net/core/dev.c and of the drivers'
// ndo_bpf, up to Linux 7.2. The first match is used: an MTU that is "not supported" is a matter of the MTU.
var extackPatterns = []struct {
	pattern *regexp.Regexp
	class   error
}{
	{regexp.MustCompile(`upper device already has`), plan.ErrUpperHasProgram},
	{regexp.MustCompile(`(?i)slave (device )?has xdp program`), plan.ErrMemberHasProgram},
	{regexp.MustCompile(`(?i)active bpf xdp link|active xdp program|already attached|can't be active at the same time`), plan.ErrHookInUse},
	{regexp.MustCompile(`(?i)\blro\b|gro_hw|hw-gro|csum|data-split|\bhds\b|memory provider|\brsc\b`), plan.ErrOffloadConflict},
	{regexp.MustCompile(`(?i)\bmtu\b|jumbo|frame size|buffer size`), plan.ErrMTUTooLarge},
	{regexp.MustCompile(`(?i)queue|\brings?\b|channel`), plan.ErrNotEnoughQueues},
	{regexp.MustCompile(`(?i)not support|no native|unsupported|any_header_sg`), plan.ErrNativeUnsupported},
}

// onePageMTU is an MTU that every driver accepts without fragments. The limit of a driver is between 1500 and 3506: the frame
// has to fit into one page of 4 KiB.
const onePageMTU = 1500

// classifyAttachError returns the error of package plan for an attach that failed, nil if it is not known. message is the
// kernel's, "" if there is none. native is the mode that was asked for, s the facts of the interface, and above whether an
// interface above it has a program.
func classifyAttachError(err error, message string, native bool, s deviceFacts, hook plan.Hook, above bool) error {
	class := xdp.ClassifyErrno(err)
	for _, p := range extackPatterns {
		if p.pattern.MatchString(message) {
			return p.class
		}
	}
	switch {
	case errors.Is(class, plan.ErrHookInUse) && hook.Program == 0 && above:
		return plan.ErrUpperHasProgram
	case !native || errors.Is(class, plan.ErrNotEnoughQueues) || errors.Is(class, plan.ErrMTUTooLarge) || class != nil && !xdp.AnotherVariantMayWork(class):
		return class
	}
	// Drivers use these errnos for any cause. Without a message the most likely cause is what is unusual about the interface.
	switch {
	case message != "":
	case len(s.Members) > 0:
		return plan.ErrMemberHasProgram
	case s.Announce == cannot:
		return plan.ErrNativeUnsupported
	case s.Announce == "" && errors.Is(class, plan.ErrNativeUnsupported) && len(s.Offloads) == 0:
		return class
	case len(s.Offloads) > 0:
		return plan.ErrOffloadConflict
	case s.MTU > onePageMTU:
		return plan.ErrMTUTooLarge
	case s.Combined > s.Most/2:
		return plan.ErrNotEnoughQueues
	}
	if class == nil {
		return plan.ErrNativeRefused
	}
	return class
}

// explainAttachError wraps the error of creating the link in an error of package plan, and adds the kernel's message and the
// program that is in the way.
func explainAttachError(err error, message string, index int, native bool) error {
	all, listed := netlink.LinkList()
	var self netlink.Link
	for _, l := range all {
		if l.Attrs().Index == index {
			self = l
		}
	}
	if self == nil {
		// The kernel returns EINVAL for an unknown index and for many other causes.
		if listed == nil && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV)) {
			return fmt.Errorf("%w: %w", plan.ErrInterfaceGone, err)
		}
		return xdp.WrapErrno(err)
	}
	upper := upperWithProgram(index, all)
	class := classifyAttachError(err, message, native, readDeviceFacts(index), xdp.HookOf(self), upper != nil)
	if message != "" {
		err = fmt.Errorf("the kernel reports %q: %w", message, err)
	}
	switch {
	case class == nil:
		return err
	case errors.Is(class, plan.ErrUpperHasProgram) && upper != nil:
		return fmt.Errorf("%w: %s has %s: %w", class, upper.Attrs().Name, describe(xdp.HookOf(upper)), err)
	case errors.Is(class, plan.ErrHookInUse):
		return busy(xdp.HookOf(self), err)
	default:
		return fmt.Errorf("%w: %w", class, err)
	}
}

// nameUpper adds the name of the interface above that has a program, and the program.
func nameUpper(err error, index int) error {
	all, _ := netlink.LinkList()
	if upper := upperWithProgram(index, all); upper != nil {
		return fmt.Errorf("%s has %s: %w", upper.Attrs().Name, describe(xdp.HookOf(upper)), err)
	}
	return err
}

// busy returns plan.ErrHookInUse with a description of the program on the hook.
func busy(hook plan.Hook, err error) error {
	if hook.Program == 0 { // it was detached meanwhile
		return fmt.Errorf("%w: %w", plan.ErrHookInUse, err)
	}
	return fmt.Errorf("%w, %s: %w", plan.ErrHookInUse, describe(hook), err)
}

// describe returns the ID of a program, and its name and tag if the process has CAP_SYS_ADMIN.
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

// permission wraps the errors of creating and loading that are caused by missing capabilities or memory. Other errnos have
// another meaning there than for a link, so they are not classified.
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
