package agent

import (
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
	{plan.ErrNativeUnsupported, v1alpha1.ReasonNativeUnsupported},
	{plan.ErrMTUTooLarge, v1alpha1.ReasonMTUTooLarge},
	{plan.ErrInterfaceGone, v1alpha1.ReasonInterfaceNotFound},
	{plan.ErrBPFFSNotMounted, v1alpha1.ReasonBPFFSNotMounted},
	{plan.ErrKernelTooOld, v1alpha1.ReasonKernelTooOld},
	{plan.ErrPermission, v1alpha1.ReasonPermissionDenied},
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

// advice says what to do about a failure, by reason. It is told i as it is now.
func advice(reason string, i plan.Interface) string {
	switch reason {
	case v1alpha1.ReasonXDPHookInUse:
		if i.Hook.Program == 0 {
			return "counting starts by itself when the hook becomes free"
		}
		return fmt.Sprintf("program id %d is attached in %s mode (bpftool prog show id %d tells whose it is); counting starts by itself when the hook becomes free",
			i.Hook.Program, i.Hook.Mode, i.Hook.Program)
	case v1alpha1.ReasonNativeUnsupported:
		return "use attachMode Auto or Generic"
	case v1alpha1.ReasonMTUTooLarge:
		return fmt.Sprintf("the MTU is %d: lower it, or use attachMode Auto or Generic", i.MTU)
	case v1alpha1.ReasonBPFFSNotMounted:
		return "mount it on the node: mount -t bpf bpf /sys/fs/bpf"
	case v1alpha1.ReasonPermissionDenied:
		return "the agent needs the capabilities BPF, NET_ADMIN and PERFMON, and SYS_ADMIN for coexistence Dispatcher"
	case v1alpha1.ReasonDispatcherUnsupported:
		return "use coexistence Exclusive where no other XDP program is wanted"
	default:
		return ""
	}
}
