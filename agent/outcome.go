// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// reasons maps errors to the reasons of the API. The first match is used.
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
	{plan.ErrNoMembers, v1alpha1.ReasonNoMembers},
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

// refusedByDriver reports whether the driver refuses native mode: its reason is one of a driver. The agent then tries
// again after a longer time, since some drivers reset their hardware before they refuse.
func refusedByDriver(err error) bool {
	return v1alpha1.LookupReason(reasonOf(err)).Scope == v1alpha1.ScopeDriver
}

// failureMessage returns the message of an interface that is not counted: the error, what the agent knows of the
// interface that explains it, and the remedy of the table. i is the interface as it is now.
func failureMessage(reason string, err error, i plan.Interface) string {
	return v1alpha1.FailureMessage(reason, withFacts(reason, err, i), i.Name)
}

// attachedRemark returns the reason and the message of an interface that is counted, "" if there is nothing to say. tunnels
// says that the node decrypts packets of IPsec tunnels, which the kernel passes to a program in generic mode twice. If there is
// more than one remark, the reason is that of the most important one, and the message has all.
func attachedRemark(h, wanted plan.Attachment, i plan.Interface, tunnels bool) (reason, message string) {
	switch {
	case h.Refused != nil:
		reason, message = fallback(h.Refused, i)
	case wanted.First == plan.Generic:
		reason, message = v1alpha1.ReasonGenericIsCheaper, cheaper(i)
	}
	if i.Hook.Mode == plan.Native {
		if plan.SegmentsInNative(i) {
			reason, message = v1alpha1.ReasonAggregatedFrames, v1alpha1.FailureMessage(v1alpha1.ReasonAggregatedFrames, andMore(aggregated, message), i.Name)
		}
		return reason, message
	}
	// A dispatcher calls a program for native mode.
	if h.CountsAggregates || h.ViaDispatcher {
		reason, message = v1alpha1.ReasonAggregatedFrames, andMore(aggregated, message)
	}
	if tunnels {
		reason, message = v1alpha1.ReasonDecryptedPacketsCounted, andMore(decrypted, message)
	}
	if reason == v1alpha1.ReasonAggregatedFrames || reason == v1alpha1.ReasonDecryptedPacketsCounted {
		message = v1alpha1.FailureMessage(reason, message, i.Name)
	}
	return reason, message
}

// What is not exact on an interface that is counted.
const (
	decrypted  = "packets that the node decrypts from IPsec tunnels here are counted twice: encrypted, and decrypted"
	aggregated = "several frames that arrive as one aggregate are counted as one packet"
)

// cheaper is the message of an interface with Auto on which generic mode costs less.
func cheaper(i plan.Interface) string {
	message := "in native mode: " + plan.CostOf(i).Native
	if i.Hook.Mode == plan.Native {
		message += "; it was attached in native mode before, and Auto changes no mode while it counts"
	}
	return message
}

// andMore adds a message, which may be "".
func andMore(message, more string) string {
	if more == "" {
		return message
	}
	return message + "; " + more
}

// fallback returns the reason and the message of an interface that Auto counts in generic mode because native mode was
// refused. Nothing has to be done about it.
func fallback(refused error, i plan.Interface) (reason, message string) {
	reason = reasonOf(refused)
	message = "counted in generic mode, because native mode was refused: " + withFacts(reason, refused, i)
	if retry := v1alpha1.LookupReason(reason).Retry; retry != "" {
		message += "; native mode is tried again when " + retry
	}
	return reason, message
}

// withFacts adds to an error what the agent knows of the interface that explains it.
func withFacts(reason string, err error, i plan.Interface) string {
	message := err.Error()
	switch {
	case reason == v1alpha1.ReasonXDPHookInUse && i.Hook.Program != 0:
		message += fmt.Sprintf("; program id %d is attached in %s mode", i.Hook.Program, cmp.Or(string(i.Hook.Mode), "offload"))
	case reason == v1alpha1.ReasonMTUTooLarge && i.MTU != 0:
		message += fmt.Sprintf("; the MTU is %d", i.MTU)
	}
	return message
}
