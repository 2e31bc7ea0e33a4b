package agent

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// reasons translates what went wrong into the stable reasons of the API. The first that fits counts.
var reasons = []struct {
	err    error
	reason string
}{
	{plan.ErrHookInUse, v1alpha1.ReasonXDPHookInUse},
	{plan.ErrUpperHasProgram, v1alpha1.ReasonUpperDeviceHasProgram},
	{plan.ErrNativeUnsupported, v1alpha1.ReasonNativeUnsupported},
	{plan.ErrMTUTooLarge, v1alpha1.ReasonMTUTooLarge},
	{plan.ErrNotEnoughQueues, v1alpha1.ReasonNotEnoughQueues},
	{plan.ErrOffloadConflict, v1alpha1.ReasonOffloadConflict},
	{plan.ErrMemberHasProgram, v1alpha1.ReasonMemberHasProgram},
	{plan.ErrNativeRefused, v1alpha1.ReasonNativeRefused},
	{plan.ErrInterfaceGone, v1alpha1.ReasonInterfaceNotFound},
	{plan.ErrBPFFSNotMounted, v1alpha1.ReasonBPFFSNotMounted},
	{plan.ErrKernelTooOld, v1alpha1.ReasonKernelTooOld},
	{plan.ErrPermission, v1alpha1.ReasonPermissionDenied},
	{plan.ErrModeConflict, v1alpha1.ReasonModeConflict},
	{plan.ErrCountedElsewhere, v1alpha1.ReasonCountedElsewhere},
	{plan.ErrNoEthernet, v1alpha1.ReasonNoEthernet},
	{plan.ErrOutOfMemory, v1alpha1.ReasonOutOfMemory},
	{plan.ErrDispatcherRefused, v1alpha1.ReasonDispatcherUnsupported},
	{plan.ErrPending, v1alpha1.ReasonPending},
}

func reasonOf(err error) string {
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			return r.reason
		}
	}
	return v1alpha1.ReasonAttachFailed
}

// isTheDrivers reports that a driver said no to native mode.
func isTheDrivers(err error) bool {
	switch reasonOf(err) {
	case v1alpha1.ReasonNativeUnsupported, v1alpha1.ReasonMTUTooLarge, v1alpha1.ReasonNotEnoughQueues,
		v1alpha1.ReasonOffloadConflict, v1alpha1.ReasonMemberHasProgram, v1alpha1.ReasonNativeRefused:
		return true
	default:
		return false
	}
}

// advice says what to do about a failure, by reason. It is told i as it is now.
func advice(reason string, i plan.Interface) string {
	switch reason {
	case v1alpha1.ReasonXDPHookInUse:
		if i.Hook.Program == 0 {
			return "counting starts by itself when the hook becomes free"
		}
		return fmt.Sprintf("program id %d is attached in %s mode (bpftool prog show id %d tells whose it is); counting starts by itself when the hook becomes free",
			i.Hook.Program, cmp.Or(string(i.Hook.Mode), "offload"), i.Hook.Program)
	case v1alpha1.ReasonUpperDeviceHasProgram:
		return "count the interface above instead, or take its program off; counting starts by itself then"
	case v1alpha1.ReasonNativeUnsupported, v1alpha1.ReasonNativeRefused:
		return "use attachMode Auto or Generic"
	case v1alpha1.ReasonMTUTooLarge:
		return fmt.Sprintf("the MTU is %d: lower it, or use attachMode Auto or Generic", i.MTU)
	case v1alpha1.ReasonNotEnoughQueues:
		return fmt.Sprintf("change the queues (ethtool -l %s shows them), or use attachMode Auto or Generic", i.Name)
	case v1alpha1.ReasonOffloadConflict:
		return fmt.Sprintf("switch the offload off (ethtool -k %s shows them), or use attachMode Auto or Generic", i.Name)
	case v1alpha1.ReasonMemberHasProgram:
		return "count the members instead or take their program off, or use attachMode Auto or Generic"
	case v1alpha1.ReasonBPFFSNotMounted:
		return "mount it on the node: mount -t bpf bpf /sys/fs/bpf"
	case v1alpha1.ReasonPermissionDenied:
		return "the agent needs the capabilities BPF, NET_ADMIN and PERFMON, and SYS_ADMIN for coexistence Dispatcher"
	case v1alpha1.ReasonNoEthernet:
		return "exclude it, and select the interface through which its packets come"
	case v1alpha1.ReasonOutOfMemory:
		return "it is tried again by itself"
	case v1alpha1.ReasonDispatcherUnsupported:
		return "use coexistence Exclusive where no other XDP program is wanted"
	default:
		return ""
	}
}

// fallback says why an interface for which Auto was asked is counted in generic mode. Nothing has to be done about it.
func fallback(refused error, i plan.Interface) (reason, message string) {
	reason = reasonOf(refused)
	message = "counted in generic mode, since native was refused: " + refused.Error()
	switch reason {
	case v1alpha1.ReasonMTUTooLarge:
		message += fmt.Sprintf("; the MTU is %d: native is tried again when it is lowered", i.MTU)
	case v1alpha1.ReasonNotEnoughQueues:
		message += "; native is tried again when the queues are changed"
	case v1alpha1.ReasonOffloadConflict:
		message += "; native is tried again when the offload is switched off"
	case v1alpha1.ReasonMemberHasProgram:
		message += "; native is tried again when the member's program is gone"
	}
	return reason, message
}
