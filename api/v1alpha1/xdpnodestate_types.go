package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// NodeCounter is an XDPCounter as the agent of one node is told of it.
type NodeCounter struct {
	// name is the name of the XDPCounter.
	Name string `json:"name"`
	// uid is the UID of the XDPCounter. Its account on this node is kept under it.
	UID types.UID `json:"uid"`
	// generation is the generation of the XDPCounter's spec that this entry follows.
	// +optional
	Generation int64 `json:"generation,omitempty"`
	// inactive is true for a counter that is suspended or selects this node no longer. Its account is kept,
	// nothing is added to it.
	// +optional
	Inactive bool `json:"inactive,omitempty"`
	// primary selects the interfaces through which a default route leaves.
	// +optional
	Primary bool `json:"primary,omitempty"`
	// names selects interfaces by name or shell glob.
	// +optional
	// +listType=atomic
	Names []string `json:"names,omitempty"`
	// exclude takes interfaces out again, by name or shell glob.
	// +optional
	// +listType=atomic
	Exclude []string `json:"exclude,omitempty"`
	// attachMode is how the program shall be attached; left out for Auto.
	// +optional
	AttachMode AttachMode `json:"attachMode,omitempty"`
	// coexistence is Dispatcher if the interfaces' hooks may be shared; left out if not.
	// +optional
	Coexistence Coexistence `json:"coexistence,omitempty"`
}

// XDPNodeStateSpec is what the controller tells the agent of one node. It is all that an agent is told.
type XDPNodeStateSpec struct {
	// counters lists the XDPCounters of this node, the oldest first. Where two disagree the older wins.
	// +optional
	// +listType=atomic
	Counters []NodeCounter `json:"counters,omitempty"`
	// reportInterval is how often the totals shall be reported while they change, at least 1s.
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="must be at least 1s"
	ReportInterval metav1.Duration `json:"reportInterval"`
	// reportDelay is how long the report that follows this spec waits, unless a regular one comes sooner. Where many nodes are
	// told something at the same time, so the reports of the cluster stay within their budget.
	// +optional
	ReportDelay metav1.Duration `json:"reportDelay,omitzero"`
	// updateTime is when this spec was last changed while its agent was heard of. A report that follows it is owed since
	// then, reportDelay later.
	// +optional
	UpdateTime *metav1.Time `json:"updateTime,omitempty"`
}

// InterfaceState says whether an interface is being counted.
// +kubebuilder:validation:Enum=Attached;Failed;Skipped;Detaching
type InterfaceState string

// The states of an interface.
const (
	InterfaceAttached  InterfaceState = "Attached"  // it is being counted
	InterfaceFailed    InterfaceState = "Failed"    // it is selected but not counted: see reason and message
	InterfaceSkipped   InterfaceState = "Skipped"   // it is selected, and its frames are counted at another one: see message
	InterfaceDetaching InterfaceState = "Detaching" // its counts are saved, the program goes next
)

// NodeInterface is the truth about one interface that is or was counted.
type NodeInterface struct {
	// name is the name of the interface; left out once it is gone.
	// +optional
	Name string `json:"name,omitempty"`
	// index is the interface's index; left out once it is gone.
	// +optional
	Index int32 `json:"index,omitempty"`
	// driver is the name of the driver.
	// +optional
	Driver string `json:"driver,omitempty"`
	// mtu is the largest payload in bytes.
	// +optional
	MTU int32 `json:"mtu,omitempty"`
	// requestedMode is the mode asked for: Auto, Native or Generic.
	// +optional
	RequestedMode AttachMode `json:"requestedMode,omitempty"`
	// mode is the mode attained, as the kernel tells it: Native or Generic.
	// +optional
	Mode AttachMode `json:"mode,omitempty"`
	// coexistence is Dispatcher while the hook is shared; left out otherwise.
	// +optional
	Coexistence Coexistence `json:"coexistence,omitempty"`
	// state is Attached, Failed, Skipped or Detaching.
	State InterfaceState `json:"state"`
	// reason is one of the documented reasons: why the interface is not counted, or why it is counted in generic mode
	// where Auto was asked for. Left out while all is well.
	// +optional
	Reason string `json:"reason,omitempty"`
	// message says what is wrong and what to do, or where its frames are counted.
	// +optional
	Message string `json:"message,omitempty"`
	// counters lists the UIDs of the counters that select the interface.
	// +optional
	// +listType=atomic
	Counters []types.UID `json:"counters,omitempty"`
	// map is the kernel's ID of the map that holds the counts, unique within status.agent.bootID.
	// +optional
	Map int64 `json:"map,omitempty"`
	// counts is the reading of the map that the accounts contain: for each class that was seen its name, the frames and
	// their bytes from the Ethernet header on, for example "IPv4/TCP 120 84000, ARP 3 126".
	// +optional
	// +kubebuilder:validation:Type=string
	Counts Counts `json:"counts,omitempty"`
}

// CounterAccount is what one counter has counted on this node since it first selected something here.
type CounterAccount struct {
	// uid is the UID of the XDPCounter.
	UID types.UID `json:"uid"`
	// generation is the generation of the XDPCounter's spec that the agent follows.
	// +optional
	Generation int64 `json:"generation,omitempty"`
	// counts holds for each class that was seen its name, the frames, their bytes from the Ethernet header on, and if there
	// was traffic the frames and the bits per second, the mean since the report before: for example
	// "IPv4/TCP 120 84000 12 67200, ARP 3 126".
	// +optional
	// +kubebuilder:validation:Type=string
	Counts Counts `json:"counts,omitempty"`
}

// AgentInfo identifies the agent that wrote a report.
type AgentInfo struct {
	// version is the version of the agent.
	// +optional
	Version string `json:"version,omitempty"`
	// kernelRelease is the node's kernel as uname -r tells it.
	// +optional
	KernelRelease string `json:"kernelRelease,omitempty"`
	// bootID is the kernel's random ID of this boot.
	// +optional
	BootID string `json:"bootID,omitempty"`
	// programTag is the kernel's hash of the counting program that the agent attaches.
	// +optional
	ProgramTag string `json:"programTag,omitempty"`
}

// XDPNodeStateStatus is what the agent of one node reports. That agent alone writes it. It is written often, so
// it is compact: all its lists but the conditions are atomic.
type XDPNodeStateStatus struct {
	// observedGeneration is the generation of the spec that this report follows.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// reportTime is when the report was made.
	// +optional
	ReportTime *metav1.MicroTime `json:"reportTime,omitempty"`
	// agent identifies who reports.
	// +optional
	Agent *AgentInfo `json:"agent,omitempty"`
	// newestMap is the highest ID of a map whose counts were ever added to the accounts, within status.agent.bootID.
	// +optional
	NewestMap int64 `json:"newestMap,omitempty"`
	// interfaces lists the interfaces that are selected or still hold counts, by index.
	// +optional
	// +listType=atomic
	Interfaces []NodeInterface `json:"interfaces,omitempty"`
	// accounts lists what each counter has counted on this node.
	// +optional
	// +listType=atomic
	Accounts []CounterAccount `json:"accounts,omitempty"`
	// conditions: Ready.
	// +optional
	// +listType=atomic
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// XDPNodeState is the contract between the controller and the agent of the node whose name it bears. The
// controller creates it, writes its spec and deletes it; the agent writes its status.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=xns,categories=xdp
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether every selected interface is being counted"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,description="Why it is ready or not"
// +kubebuilder:printcolumn:name="Interval",type=string,JSONPath=`.spec.reportInterval`,description="How often the agent reports while the totals change"
// +kubebuilder:printcolumn:name="Reported",type=date,JSONPath=`.status.reportTime`,description="When the agent last reported"
// +kubebuilder:printcolumn:name="Kernel",type=string,JSONPath=`.status.agent.kernelRelease`,priority=1,description="The node's kernel"
// +kubebuilder:printcolumn:name="Agent",type=string,JSONPath=`.status.agent.version`,priority=1,description="The agent's version"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`,description="How long ago it was made"
type XDPNodeState struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what the controller tells the agent.
	// +optional
	Spec XDPNodeStateSpec `json:"spec,omitzero"`

	// status is what the agent reports.
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
