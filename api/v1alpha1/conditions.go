package v1alpha1

// Condition types.
const (
	// ConditionReady is True when what the spec asks for is so: of an XDPCounter, that every selected interface
	// of every selected node is being counted (or counting is suspended as asked); of an XDPNodeState, that
	// every selected interface of this node is.
	ConditionReady = "Ready"

	// ConditionReconciling is there, and True, while Ready is Unknown: something is on its way. kstatus
	// (sigs.k8s.io/cli-utils/pkg/kstatus), by which Flux and others judge, calls such an object InProgress.
	ConditionReconciling = "Reconciling"

	// ConditionStalled is there, and True, while Ready is False, or nobody counts any more: nothing is on its way, and
	// something or somebody has to change what the message names. What was asked for is still tried. kstatus calls
	// such an object Failed.
	ConditionStalled = "Stalled"
)

// Reasons of an XDPCounter's Ready condition, and of the Reconciling or Stalled beside it. ReasonNoInterfacesMatched and
// ReasonAgentNotReporting are reasons of single nodes in status.failures too, ReasonNodeUnreachable is one of these only.
const (
	ReasonPending               = "Pending"               // Unknown: the controller or some agents have not yet taken the spec up
	ReasonAllInterfacesAttached = "AllInterfacesAttached" // True: every selected interface is being counted
	ReasonSuspended             = "Suspended"             // True: nothing is counted, as spec.suspend asks; the totals are kept
	ReasonUninstalled           = "Uninstalled"           // Unknown: xdp-operator was uninstalled; nothing is counted, the totals are kept
	ReasonInvalidNodeSelector   = "InvalidNodeSelector"   // False: spec.nodeSelector holds something that is no label
	ReasonNoNodesSelected       = "NoNodesSelected"       // False: spec.nodeSelector matches no node
	ReasonNoInterfacesMatched   = "NoInterfacesMatched"   // False: spec.interfaces matches no interface
	ReasonPartiallyAttached     = "PartiallyAttached"     // False: some interfaces are counted, some are not
	ReasonNothingAttached       = "NothingAttached"       // False: interfaces are selected, none is counted
	ReasonAgentNotReporting     = "AgentNotReporting"     // False: the agents of some selected nodes are silent, the others count
	ReasonNodeUnreachable       = "NodeUnreachable"       // the node's kubelet tells the cluster nothing any more, and its agent neither
)

// Reasons of one interface, in XDPNodeState.status.interfaces and, but for CountedElsewhere, XDPCounter.status.failures:
// why it is not counted.
// docs/troubleshooting.md says of each what to do. ReasonPending, above, is one of them.
const (
	ReasonXDPHookInUse          = "XDPHookInUse"          // another XDP program holds the interface; it is left alone
	ReasonUpperDeviceHasProgram = "UpperDeviceHasProgram" // an interface above this one (a bond, a bridge, a VLAN) has an XDP program
	ReasonInterfaceNotFound     = "InterfaceNotFound"     // the interface went away
	ReasonPermissionDenied      = "PermissionDenied"      // the agent lacks a capability
	ReasonBPFFSNotMounted       = "BPFFSNotMounted"       // there is no BPF file system to keep the program in
	ReasonKernelTooOld          = "KernelTooOld"          // the kernel has no XDP links (Linux 5.9)
	ReasonOutOfMemory           = "OutOfMemory"           // the kernel or the driver has no memory for it
	ReasonDispatcherUnsupported = "DispatcherUnsupported" // the kernel, or the dispatcher that is there, does not let the hook be shared
	ReasonModeConflict          = "ModeConflict"          // an older XDPCounter wants the interface in another mode
	ReasonNoEthernet            = "NoEthernet"            // its packets have no Ethernet header, by which the program counts
	ReasonCountedElsewhere      = "CountedElsewhere"      // state Skipped, no failure: its frames are counted at another interface that is selected too
	ReasonAttachFailed          = "AttachFailed"          // any other error, which the message holds
)

// Reasons of one interface that lie with its driver. Where attachMode is Native it is not counted. Where it is Auto it
// is Attached in Generic mode, and the reason says why: then the interface is no failure.
const (
	ReasonNativeUnsupported = "NativeUnsupported" // the driver has no native XDP
	ReasonMTUTooLarge       = "MTUTooLarge"       // the MTU is larger than the driver's native XDP takes
	ReasonNotEnoughQueues   = "NotEnoughQueues"   // the driver wants other numbers of queues for native XDP
	ReasonOffloadConflict   = "OffloadConflict"   // an offload is on that the driver does not combine with native XDP
	ReasonMemberHasProgram  = "MemberHasProgram"  // a member of the bond has an XDP program
	ReasonNativeRefused     = "NativeRefused"     // the driver refuses native XDP for a reason of its own, which the message holds
)

// Reasons of the events on an XDPCounter. An event tells of all interfaces to which the same happened, on any node,
// since the last one. Their action is CountInterfaces.
const (
	EventInterfacesAttached   = "InterfacesAttached"   // Normal: their packets are counted from now on
	EventInterfacesReattached = "InterfacesReattached" // Normal: they are counted again, after the hook became free, the link was cut, the mode or the MTU changed or the node was started anew
	EventInterfacesDetached   = "InterfacesDetached"   // Normal: they are counted no more: gone, not selected any more, suspended, or the node left
	EventInterfacesLost       = "InterfacesLost"       // Warning: they were being counted and cannot be any more
	EventAttachFailed         = "AttachFailed"         // Warning: they are selected and cannot be counted
)

// AnnotationRetiring marks an XDPNodeState whose accounts are being added to the share of the nodes that left. It is
// deleted next, also if its node has come back: then a new one is made.
const AnnotationRetiring = "xdp-operator.io/retiring"
