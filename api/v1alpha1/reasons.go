// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of an XDPCounter's Ready condition, and of the Reconciling or Stalled condition beside it.
// ReasonNoInterfacesMatched and ReasonAgentNotReporting are also reasons of single nodes in status.failures;
// ReasonNodeUnreachable is only a reason of single nodes. ReasonPending is also a reason of single interfaces.
const (
	ReasonPending               = "Pending"               // the controller or some agents have not applied the spec yet
	ReasonAllInterfacesAttached = "AllInterfacesAttached" // every selected interface is counted
	ReasonSuspended             = "Suspended"             // spec.suspend is set: nothing is counted, and the totals are kept
	ReasonUninstalled           = "Uninstalled"           // xdp-operator was uninstalled: nothing is counted, and the totals are kept
	ReasonInvalidNodeSelector   = "InvalidNodeSelector"   // spec.nodeSelector is not a valid label selector
	ReasonNoNodesSelected       = "NoNodesSelected"       // spec.nodeSelector matches no node on which an agent can run
	ReasonNoInterfacesMatched   = "NoInterfacesMatched"   // spec.interfaces matches no interface of the node
	ReasonPartiallyAttached     = "PartiallyAttached"     // some selected interfaces are counted and some are not
	ReasonNothingAttached       = "NothingAttached"       // interfaces are selected and none is counted
	ReasonAgentNotReporting     = "AgentNotReporting"     // the agent of a selected node has not reported in time
	ReasonNodeUnreachable       = "NodeUnreachable"       // neither the kubelet nor the agent of a selected node reports
)

// Reasons of one interface, in XDPNodeState.status.interfaces and, except for ReasonCountedElsewhere and ReasonNoMembers, in
// XDPCounter.status.failures.
const (
	ReasonXDPHookInUse          = "XDPHookInUse"          // another XDP program is attached to the interface; it is not replaced
	ReasonUpperDeviceHasProgram = "UpperDeviceHasProgram" // an interface above this one (a bond, a bridge, a VLAN) has an XDP program
	ReasonInterfaceNotFound     = "InterfaceNotFound"     // the interface was deleted while it was being attached
	ReasonPermissionDenied      = "PermissionDenied"      // the agent lacks a capability, or AppArmor or SELinux denies it access
	ReasonBPFFSNotMounted       = "BPFFSNotMounted"       // no BPF file system is mounted at the place where the program is pinned
	ReasonKernelTooOld          = "KernelTooOld"          // the kernel has no XDP links (Linux 5.9)
	ReasonOutOfMemory           = "OutOfMemory"           // the kernel or the driver is out of memory
	ReasonDispatcherUnsupported = "DispatcherUnsupported" // the kernel, or the dispatcher that is attached, does not let programs share the hook
	ReasonModeConflict          = "ModeConflict"          // an older XDPCounter asks for another mode on the interface
	ReasonNoEthernet            = "NoEthernet"            // the packets of the interface have no Ethernet header, which the program needs
	ReasonCountedElsewhere      = "CountedElsewhere"      // no failure, the state is Skipped: the same frames are counted at another interface
	ReasonNoMembers             = "NoMembers"             // no failure, the state is Skipped: the bond or team has no members, through which it would receive frames
	ReasonAttachFailed          = "AttachFailed"          // any other error, which is in the message
)

// Reasons of an interface that is Attached and counted, in XDPNodeState.status.interfaces.
const (
	ReasonDecryptedPacketsCounted = "DecryptedPacketsCounted" // no failure: in generic mode, packets that the node decrypts from IPsec tunnels count twice
	ReasonAggregatedFrames        = "AggregatedFrames"        // no failure: several frames that arrive as one aggregate count as one packet
	ReasonGenericIsCheaper        = "GenericIsCheaper"        // no failure: attachMode is Auto, and generic mode takes less of the interface's traffic than native mode
)

// Reasons why a driver refuses native XDP. If attachMode is Native, the interface is not counted. If it is Auto, the
// interface is Attached in Generic mode, which is no failure, and the reason says why.
const (
	ReasonNativeUnsupported = "NativeUnsupported" // the driver has no native XDP
	ReasonMTUTooLarge       = "MTUTooLarge"       // the MTU is too large for the driver's native XDP
	ReasonNotEnoughQueues   = "NotEnoughQueues"   // the driver needs another number of queues for native XDP
	ReasonOffloadConflict   = "OffloadConflict"   // an enabled offload conflicts with the driver's native XDP
	ReasonMemberHasProgram  = "MemberHasProgram"  // a member of the bond has an XDP program
	ReasonNativeRefused     = "NativeRefused"     // the driver refuses native XDP for another cause, which is in the message
)

// ReasonScope is what a reason is about.
type ReasonScope int

// Scopes of reasons, in the order of the table.
const (
	ScopeCounter   ReasonScope = iota // a whole XDPCounter, or one of its nodes
	ScopeInterface                    // one interface
	ScopeDriver                       // one interface whose driver refuses native XDP
)

// ReasonInfo documents one reason. Messages in status, kubectl xdpcounter why and the documentation are written from it.
// Its commands may hold these placeholders: {interface} the name of an interface, {counter} the name of an XDPCounter,
// {namespace} the namespace of the agents' pods.
//
// +kubebuilder:object:generate=false
type ReasonInfo struct {
	Reason  string
	Scope   ReasonScope
	Status  metav1.ConditionStatus // of the Ready condition of an XDPCounter; "" if it is never the reason of that
	Meaning string                 // a clause: lower case, without a full stop; the comment of the constant says the same
	Remedy  string                 // what to do, a clause as Meaning; "" if there is nothing to do
	Kubectl string                 // a kubectl command that shows more or applies the remedy; "" for none
	OnNode  string                 // a command for a shell on the node; "" for none
	Retry   string                 // when Auto tries native mode again, a clause; "" if it does not by itself
}

// Commands that several reasons share.
const (
	// AgentPodLabels selects the pods of the agents, ControllerPodLabels those of the controller. Both are the same for
	// every release of the chart and for the kustomization, whatever the namespace.
	AgentPodLabels      = "app.kubernetes.io/name=xdp-operator,app.kubernetes.io/component=agent"
	ControllerPodLabels = "app.kubernetes.io/name=xdp-operator,app.kubernetes.io/component=controller"

	listAgentPods = "kubectl get pods -A -o wide -l " + AgentPodLabels
	showAgentLogs = "kubectl logs -n {namespace} -l " + AgentPodLabels + " --prefix --tail=20"
	editCounter   = "kubectl edit xdpcounter {counter}"
	setModeAuto   = `kubectl patch xdpcounter {counter} --type=merge -p '{"spec":{"attachMode":"Auto"}}'`
)

// reasonTable has all reasons in the order of the constants.
var reasonTable = []ReasonInfo{
	{
		Reason: ReasonPending, Scope: ScopeCounter, Status: metav1.ConditionUnknown,
		Meaning: "the controller or some agents have not applied the spec yet",
		Remedy:  "wait a few seconds; if it stays, read the log of the agent on that node",
		Kubectl: showAgentLogs,
	},
	{
		Reason: ReasonAllInterfacesAttached, Scope: ScopeCounter, Status: metav1.ConditionTrue,
		Meaning: "every selected interface is counted",
	},
	{
		Reason: ReasonSuspended, Scope: ScopeCounter, Status: metav1.ConditionTrue,
		Meaning: "spec.suspend is set: nothing is counted, and the totals are kept",
	},
	{
		Reason: ReasonUninstalled, Scope: ScopeCounter, Status: metav1.ConditionUnknown,
		Meaning: "xdp-operator was uninstalled: nothing is counted, and the totals are kept",
		Remedy:  "install xdp-operator again; counting continues from the totals",
	},
	{
		Reason: ReasonInvalidNodeSelector, Scope: ScopeCounter, Status: metav1.ConditionFalse,
		Meaning: "spec.nodeSelector is not a valid label selector",
		Remedy:  "correct spec.nodeSelector",
		Kubectl: editCounter,
	},
	{
		Reason: ReasonNoNodesSelected, Scope: ScopeCounter, Status: metav1.ConditionFalse,
		Meaning: "spec.nodeSelector matches no node on which an agent can run",
		Remedy:  "compare spec.nodeSelector with the labels of the nodes",
		Kubectl: "kubectl get nodes --show-labels",
	},
	{
		Reason: ReasonNoInterfacesMatched, Scope: ScopeCounter, Status: metav1.ConditionFalse,
		Meaning: "spec.interfaces matches no interface of the node",
		Remedy:  "change spec.interfaces, or exclude the node by spec.nodeSelector",
		Kubectl: editCounter, OnNode: "ip -br link",
	},
	{
		Reason: ReasonPartiallyAttached, Scope: ScopeCounter, Status: metav1.ConditionFalse,
		Meaning: "some selected interfaces are counted and some are not",
		Remedy:  "see the reasons in status.failures",
		Kubectl: "kubectl xdpcounter why {counter}",
	},
	{
		Reason: ReasonNothingAttached, Scope: ScopeCounter, Status: metav1.ConditionFalse,
		Meaning: "interfaces are selected and none is counted",
		Remedy:  "see the reasons in status.failures",
		Kubectl: "kubectl xdpcounter why {counter}",
	},
	{
		Reason: ReasonAgentNotReporting, Scope: ScopeCounter, Status: metav1.ConditionFalse,
		Meaning: "the agent of a selected node has not reported in time",
		Remedy:  "check that the agent's pod runs on the node",
		Kubectl: listAgentPods,
	},
	{
		Reason: ReasonNodeUnreachable, Scope: ScopeCounter,
		Meaning: "neither the kubelet nor the agent of a selected node reports",
		Remedy:  "check the node; what its interfaces count is reported when it is back",
		Kubectl: "kubectl get nodes -o wide",
	},
	{
		Reason: ReasonXDPHookInUse, Scope: ScopeInterface,
		Meaning: "another XDP program is attached to the interface; it is not replaced",
		Remedy:  "remove that program, then counting starts without further action, or exclude the interface",
		Kubectl: editCounter, OnNode: "bpftool net show dev {interface}",
	},
	{
		Reason: ReasonUpperDeviceHasProgram, Scope: ScopeInterface,
		Meaning: "an interface above this one (a bond, a bridge, a VLAN) has an XDP program",
		Remedy:  "count the interface above and exclude this one, or remove the program above, then counting starts without further action",
		Kubectl: editCounter, OnNode: "ip -d link",
	},
	{
		Reason: ReasonInterfaceNotFound, Scope: ScopeInterface,
		Meaning: "the interface was deleted while it was being attached",
		Remedy:  "none needed: the interface is counted when it is created again",
	},
	{
		Reason: ReasonPermissionDenied, Scope: ScopeInterface,
		Meaning: "the agent lacks a capability, or AppArmor or SELinux denies it access",
		Remedy: "give the agent's container the capabilities BPF, NET_ADMIN and PERFMON, SYS_RESOURCE before Linux 5.11, " +
			"and SYS_ADMIN for coexistence Dispatcher; if it has them, run it with an AppArmor profile or SELinux type that " +
			"allows bpf and writing to the BPF file system",
		Kubectl: listAgentPods, OnNode: "dmesg | grep -i denied",
	},
	{
		Reason: ReasonBPFFSNotMounted, Scope: ScopeInterface,
		Meaning: "no BPF file system is mounted at the place where the program is pinned",
		Remedy:  "mount the BPF file system on the node",
		OnNode:  "mount -t bpf bpf /sys/fs/bpf",
	},
	{
		Reason: ReasonKernelTooOld, Scope: ScopeInterface,
		Meaning: "the kernel has no XDP links (Linux 5.9)",
		Remedy:  "run Linux 5.10 or later on the node, or exclude the node by spec.nodeSelector",
		Kubectl: editCounter,
	},
	{
		Reason: ReasonOutOfMemory, Scope: ScopeInterface,
		Meaning: "the kernel or the driver is out of memory",
		Remedy:  "check the memory of the node and the memory limit of the agent's pod; the agent retries",
		Kubectl: listAgentPods,
	},
	{
		Reason: ReasonDispatcherUnsupported, Scope: ScopeInterface,
		Meaning: "the kernel, or the dispatcher that is attached, does not let programs share the hook",
		Remedy:  "use coexistence Exclusive if no other XDP program is wanted, or exclude the interface",
		Kubectl: editCounter,
	},
	{
		Reason: ReasonModeConflict, Scope: ScopeInterface,
		Meaning: "an older XDPCounter asks for another mode on the interface",
		Remedy:  "use attachMode Auto or the same mode, or exclude the interface",
		Kubectl: editCounter,
	},
	{
		Reason: ReasonNoEthernet, Scope: ScopeInterface,
		Meaning: "the packets of the interface have no Ethernet header, which the program needs",
		Remedy:  "exclude the interface, and select the one that carries its packets",
		Kubectl: editCounter,
	},
	{
		Reason: ReasonCountedElsewhere, Scope: ScopeInterface,
		Meaning: "no failure, the state is Skipped: the same frames are counted at another interface",
	},
	{
		Reason: ReasonNoMembers, Scope: ScopeInterface,
		Meaning: "no failure, the state is Skipped: the bond or team has no members, through which it would receive frames",
		Remedy:  "none needed: members are counted as soon as they join",
	},
	{
		Reason: ReasonAttachFailed, Scope: ScopeInterface,
		Meaning: "any other error, which is in the message",
		Remedy:  "read the log of the agent; the agent retries",
		Kubectl: showAgentLogs,
	},
	{
		Reason: ReasonDecryptedPacketsCounted, Scope: ScopeInterface,
		Meaning: "no failure: in generic mode, packets that the node decrypts from IPsec tunnels count twice",
		Remedy:  "use attachMode Native if the driver supports it, or count the interface below",
		Kubectl: editCounter, OnNode: "ip xfrm policy",
	},
	{
		Reason: ReasonAggregatedFrames, Scope: ScopeInterface,
		Meaning: "no failure: several frames that arrive as one aggregate count as one packet",
		Remedy:  "use attachMode Auto, or on a tap interface Generic; generic mode needs a kernel with BTF that is not locked down, best Linux 6.2 or later",
		Kubectl: editCounter, OnNode: "cat /sys/kernel/security/lockdown",
	},
	{
		Reason: ReasonGenericIsCheaper, Scope: ScopeInterface,
		Meaning: "no failure: attachMode is Auto, and generic mode takes less of the interface's traffic than native mode",
		Remedy:  "none needed; attachMode Generic changes an interface that was attached in native mode before, and misses frames meanwhile",
		Kubectl: editCounter, OnNode: "ip -d link show dev {interface}",
	},
	{
		Reason: ReasonNativeUnsupported, Scope: ScopeDriver,
		Meaning: "the driver has no native XDP",
		Remedy:  "use attachMode Auto or Generic",
		Kubectl: setModeAuto, OnNode: "ethtool -i {interface}",
	},
	{
		Reason: ReasonMTUTooLarge, Scope: ScopeDriver,
		Meaning: "the MTU is too large for the driver's native XDP",
		Remedy:  "lower the MTU, or use attachMode Auto or Generic",
		Kubectl: setModeAuto, OnNode: "ip link show dev {interface}",
		Retry: "the MTU is lowered",
	},
	{
		Reason: ReasonNotEnoughQueues, Scope: ScopeDriver,
		Meaning: "the driver needs another number of queues for native XDP",
		Remedy:  "change the number of queues, or use attachMode Auto or Generic",
		Kubectl: setModeAuto, OnNode: "ethtool -l {interface}",
		Retry: "the number of queues is changed",
	},
	{
		Reason: ReasonOffloadConflict, Scope: ScopeDriver,
		Meaning: "an enabled offload conflicts with the driver's native XDP",
		Remedy:  "disable the offload, or use attachMode Auto or Generic",
		Kubectl: setModeAuto, OnNode: "ethtool -k {interface}",
		Retry: "the offload is disabled",
	},
	{
		Reason: ReasonMemberHasProgram, Scope: ScopeDriver,
		Meaning: "a member of the bond has an XDP program",
		Remedy:  "remove the member's program, or use attachMode Auto or Generic",
		Kubectl: setModeAuto, OnNode: "ip -d link show master {interface}",
		Retry: "the member's program is removed",
	},
	{
		Reason: ReasonNativeRefused, Scope: ScopeDriver,
		Meaning: "the driver refuses native XDP for another cause, which is in the message",
		Remedy:  "use attachMode Auto or Generic",
		Kubectl: setModeAuto, OnNode: "dmesg",
	},
}

// Reasons returns the table of all reasons, in the order of the constants.
func Reasons() []ReasonInfo { return slices.Clone(reasonTable) }

// LookupReason returns what the table has on a reason, the zero value if it is not in the table: a newer agent or
// controller may have more.
func LookupReason(reason string) ReasonInfo {
	if at := slices.IndexFunc(reasonTable, func(r ReasonInfo) bool { return r.Reason == reason }); at >= 0 {
		return reasonTable[at]
	}
	return ReasonInfo{}
}

// remedyMark separates the cause and the remedy in a message.
const remedyMark = "; remedy: "

// FailureMessage returns the message of a failure: the cause, and what the table says to do about the reason. The
// interface's name is filled in; it may be "" for a reason of a whole node.
func FailureMessage(reason, cause, iface string) string {
	r := LookupReason(reason)
	if r.Remedy == "" {
		return cause
	}
	message := cause + remedyMark + r.Remedy
	if r.OnNode != "" && iface != "" {
		message += "; on the node: " + strings.ReplaceAll(r.OnNode, "{interface}", iface)
	}
	return message
}

// CauseOf returns the cause in a message of FailureMessage, without the remedy. Another message is returned as it is.
func CauseOf(message string) string {
	cause, _, _ := strings.Cut(message, remedyMark)
	return cause
}
