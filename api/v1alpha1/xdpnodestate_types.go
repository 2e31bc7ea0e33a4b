// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// NodeCounter is the part of an XDPCounter that the agent of one node needs.
type NodeCounter struct {
	// name is the name of the XDPCounter.
	Name string `json:"name"`
	// uid is the UID of the XDPCounter. It identifies the counter's account on this node.
	UID types.UID `json:"uid"`
	// generation is the generation of the XDPCounter's spec from which this entry was made.
	// +optional
	Generation int64 `json:"generation,omitempty"`
	// inactive is true for a counter that is suspended or no longer selects this node. Its account is kept but does not
	// grow.
	// +optional
	Inactive bool `json:"inactive,omitempty"`
	// primary selects the interfaces of the node's default routes.
	// +optional
	Primary bool `json:"primary,omitempty"`
	// names selects interfaces by name or shell glob.
	// +optional
	// +listType=atomic
	Names []string `json:"names,omitempty"`
	// exclude removes interfaces from the selection, by name or shell glob.
	// +optional
	// +listType=atomic
	Exclude []string `json:"exclude,omitempty"`
	// attachMode is the requested attach mode. It is not set for Auto.
	// +optional
	AttachMode AttachMode `json:"attachMode,omitempty"`
	// coexistence is Dispatcher if the XDP hooks are shared. It is not set for Exclusive.
	// +optional
	Coexistence Coexistence `json:"coexistence,omitempty"`
}

// XDPNodeStateSpec holds the instructions of the controller to the agent of one node. The agent gets no others.
type XDPNodeStateSpec struct {
	// counters lists the XDPCounters of this node, the oldest first. If two of them conflict, the older one applies.
	// +optional
	// +listType=atomic
	Counters []NodeCounter `json:"counters,omitempty"`
	// reportInterval is how often the agent reports the totals while they change, at least 1s. The controller doubles the
	// interval that the XDPCounters request until the reports of all nodes stay within the cluster's write budget.
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="must be at least 1s"
	ReportInterval metav1.Duration `json:"reportInterval"`
	// reportBytesPerSecond is this node's share of the cluster's budget of report bytes. The agent doubles reportInterval
	// until its reports stay within it. 0 means no limit.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ReportBytesPerSecond int64 `json:"reportBytesPerSecond,omitempty"`
	// updateTime is when the controller last changed this spec, by the controller's clock. The agent must apply a changed
	// spec within three minutes.
	// +optional
	UpdateTime *metav1.Time `json:"updateTime,omitempty"`
}

// InterfaceState says whether an interface is counted.
// +kubebuilder:validation:Enum=Attached;Failed;Skipped;Detaching
type InterfaceState string

// The states of an interface.
const (
	InterfaceAttached  InterfaceState = "Attached"  // counted
	InterfaceFailed    InterfaceState = "Failed"    // selected but not counted: see reason and message
	InterfaceSkipped   InterfaceState = "Skipped"   // selected, but its frames are counted on another interface: see message
	InterfaceDetaching InterfaceState = "Detaching" // its counts are saved, and the program is detached next, or when its pins are visible
)

// NodeInterface is the state of one interface that is selected, or that still has counts.
type NodeInterface struct {
	// name is the name of the interface. It is not set if the interface no longer exists.
	// +optional
	Name string `json:"name,omitempty"`
	// index is the index of the interface. It is not set if the interface no longer exists.
	// +optional
	Index int32 `json:"index,omitempty"`
	// driver is the name of the driver.
	// +optional
	Driver string `json:"driver,omitempty"`
	// mtu is the maximum transmission unit in bytes.
	// +optional
	MTU int32 `json:"mtu,omitempty"`
	// requestedMode is the requested attach mode: Auto, Native or Generic.
	// +optional
	RequestedMode AttachMode `json:"requestedMode,omitempty"`
	// mode is the attach mode that the kernel reports: Native or Generic.
	// +optional
	Mode AttachMode `json:"mode,omitempty"`
	// coexistence is Dispatcher while the XDP hook is shared. It is not set otherwise.
	// +optional
	Coexistence Coexistence `json:"coexistence,omitempty"`
	// state is Attached, Failed, Skipped or Detaching.
	State InterfaceState `json:"state"`
	// reason is one of the documented reasons. It says why the interface is not counted, why it is counted in generic mode
	// if Auto was requested, or what it counts twice. It is not set otherwise.
	// +optional
	Reason string `json:"reason,omitempty"`
	// message describes the failure and its remedy, or names the interface on which the frames are counted.
	// +optional
	Message string `json:"message,omitempty"`
	// counters lists the UIDs of the counters that select the interface.
	// +optional
	// +listType=atomic
	Counters []types.UID `json:"counters,omitempty"`
	// switchedOff lists the features that the kernel or the driver has switched off for the program, on this interface, on the
	// peer of a veth, and on interfaces below. They are on again when the program is detached. They are read when the program
	// is attached and when the agent starts. The list is empty if an agent of an earlier version has attached the program.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	SwitchedOff []SwitchedOffFeatures `json:"switchedOff,omitempty"`
	// map is the kernel's ID of the BPF map that holds the counts. It is unique within one boot, see status.agent.bootID.
	// +optional
	Map int64 `json:"map,omitempty"`
	// counts is the content of the map when it was last added to the accounts. It lists for each class its name, the
	// number of frames, and their bytes including the Ethernet header, for example "IPv4/TCP 120 84000, ARP 3 126".
	// +optional
	// +kubebuilder:validation:Type=string
	Counts Counts `json:"counts,omitempty"`
}

// SwitchedOffFeatures are the features that an attach has switched off on one interface.
type SwitchedOffFeatures struct {
	// interface is the name of the interface that has the features.
	Interface string `json:"interface"`
	// features lists the names of the features, as "ethtool -k" prints them, for example rx-gro-hw.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=64
	Features []string `json:"features"`
}

// The most that the lists of an entry may have.
const (
	MaxSwitchedOffInterfaces = 16
	MaxSwitchedOffFeatures   = 64
)

// OmittedInterfaces is the number of interfaces of one counter that are not counted and that status.interfaces does not list.
type OmittedInterfaces struct {
	// uid is the UID of the XDPCounter.
	UID types.UID `json:"uid"`
	// failed is the number of interfaces that cannot be counted.
	// +optional
	Failed int32 `json:"failed,omitempty"`
	// pending is the number of interfaces that are about to be attached.
	// +optional
	Pending int32 `json:"pending,omitempty"`
	// skipped is the number of interfaces whose frames are counted on another interface.
	// +optional
	Skipped int32 `json:"skipped,omitempty"`
}

// CounterAccount holds what one counter has counted on this node since it first selected an interface of the node.
type CounterAccount struct {
	// uid is the UID of the XDPCounter.
	UID types.UID `json:"uid"`
	// generation is the generation of the XDPCounter's spec that the agent has applied.
	// +optional
	Generation int64 `json:"generation,omitempty"`
	// counts lists for each class its name, the number of frames, and their bytes including the Ethernet header. If the
	// class had traffic since the previous report, the mean frames per second and bits per second since then follow. For
	// example "IPv4/TCP 120 84000 12 67200, ARP 3 126".
	// +optional
	// +kubebuilder:validation:Type=string
	Counts Counts `json:"counts,omitempty"`
}

// AgentInfo identifies the agent that wrote a report.
type AgentInfo struct {
	// version is the version of the agent.
	// +optional
	Version string `json:"version,omitempty"`
	// kernelRelease is the node's kernel release, as uname -r prints it.
	// +optional
	KernelRelease string `json:"kernelRelease,omitempty"`
	// bootID is the kernel's random ID of this boot.
	// +optional
	BootID string `json:"bootID,omitempty"`
	// programTag is the kernel's hash of the counting program that the agent attaches.
	// +optional
	ProgramTag string `json:"programTag,omitempty"`
}

// XDPNodeStateStatus is the report of the agent of one node. Only that agent writes it. It is written often, so it is
// compact and all its lists are atomic.
type XDPNodeStateStatus struct {
	// observedGeneration is the generation of the spec that the agent has applied.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// reportTime is the time of the report, by the node's clock. It changes with each report.
	// +optional
	ReportTime *metav1.MicroTime `json:"reportTime,omitempty"`
	// nextReportTime is when the next report is due at the latest, by the node's clock. An agent is late when more time has
	// passed since its report arrived than from reportTime to nextReportTime.
	// +optional
	NextReportTime *metav1.Time `json:"nextReportTime,omitempty"`
	// reportBytes is the size of a report as JSON in bytes, rounded up. It changes only when reports become larger than it,
	// or smaller than three quarters of it.
	// +optional
	ReportBytes int32 `json:"reportBytes,omitempty"`
	// agent identifies the agent that wrote this report.
	// +optional
	Agent *AgentInfo `json:"agent,omitempty"`
	// newestMap is the highest ID of a BPF map whose counts were added to the accounts, or that existed when the accounts
	// were opened while no map could be read, within one boot, see status.agent.bootID.
	// +optional
	NewestMap int64 `json:"newestMap,omitempty"`
	// interfaces lists the interfaces that are selected or still have counts, sorted by index. All that are counted are
	// listed. Of those that are not, the first 100 are listed, and at least one of each kind for each counter. See
	// omittedInterfaces for the others.
	// +optional
	// +listType=atomic
	Interfaces []NodeInterface `json:"interfaces,omitempty"`
	// omittedInterfaces has for each counter the numbers of its interfaces that interfaces does not list.
	// +optional
	// +listType=atomic
	OmittedInterfaces []OmittedInterfaces `json:"omittedInterfaces,omitempty"`
	// accounts lists what each counter has counted on this node.
	// +optional
	// +listType=atomic
	Accounts []CounterAccount `json:"accounts,omitempty"`
	// conditions holds Ready.
	// +optional
	// +listType=atomic
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// XDPNodeState is the interface between the controller and the agent of the node of the same name. The controller
// creates it, writes its spec and deletes it. The agent writes its status.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=xns,categories=xdp
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether every selected interface is counted"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="The reason of the Ready condition"
// +kubebuilder:printcolumn:name="Interval",type=string,JSONPath=`.spec.reportInterval`,description="How often the agent reports while the totals change"
// +kubebuilder:printcolumn:name="Reported",type=date,JSONPath=`.status.reportTime`,description="Time since the last report"
// +kubebuilder:printcolumn:name="Kernel",type=string,JSONPath=`.status.agent.kernelRelease`,priority=1,description="The node's kernel release"
// +kubebuilder:printcolumn:name="Agent",type=string,JSONPath=`.status.agent.version`,priority=1,description="The agent's version"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`,description="Time since creation"
type XDPNodeState struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec holds the instructions of the controller to the agent.
	// +optional
	Spec XDPNodeStateSpec `json:"spec,omitzero"`

	// status is the report of the agent.
	// +optional
	Status XDPNodeStateStatus `json:"status,omitzero"`
}

// XDPNodeStateList is a list of XDPNodeStates.
// +kubebuilder:object:root=true
type XDPNodeStateList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []XDPNodeState `json:"items"`
}
