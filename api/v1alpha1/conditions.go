// SPDX-License-Identifier: Apache-2.0

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

// Reasons of the events on an XDPCounter. An event lists all interfaces to which the same happened, on any node,
// since the last one. Their action is CountInterfaces.
const (
	EventInterfacesAttached   = "InterfacesAttached"   // Normal: their packets are counted from now on
	EventInterfacesReattached = "InterfacesReattached" // Normal: they are counted again, after the hook became free, the link was detached, the mode or the MTU changed or the node was started anew
	EventInterfacesDetached   = "InterfacesDetached"   // Normal: they are counted no more: gone, not selected any more, suspended, or the node left
	EventInterfacesLost       = "InterfacesLost"       // Warning: they were being counted and cannot be any more
	EventAttachFailed         = "AttachFailed"         // Warning: they are selected and cannot be counted
)

// AnnotationRetiring marks an XDPNodeState whose accounts are being added to the share of the nodes that left. It is
// deleted next, also if its node has come back: then a new one is made.
const AnnotationRetiring = "xdp-operator.io/retiring"
