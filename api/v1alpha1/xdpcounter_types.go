// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// AttachMode is the XDP mode in which the counting program is attached to an interface.
// +kubebuilder:validation:Enum=Auto;Native;Generic
type AttachMode string

// The attach modes. Auto occurs only in a spec. A status reports Native or Generic.
const (
	AttachAuto    AttachMode = "Auto"
	AttachNative  AttachMode = "Native"
	AttachGeneric AttachMode = "Generic"
)

// Coexistence says whether the XDP hook of an interface is shared with other programs.
// +kubebuilder:validation:Enum=Exclusive;Dispatcher
type Coexistence string

// The values of Coexistence.
const (
	// CoexistenceExclusive attaches with a BPF link. It does not replace another program, and cannot be replaced by one.
	CoexistenceExclusive Coexistence = "Exclusive"
	// CoexistenceDispatcher shares the hook through the dispatcher of libxdp.
	CoexistenceDispatcher Coexistence = "Dispatcher"
)

// InterfacePattern is the name of a network interface, or a shell glob: * matches any characters, ? matches one
// character, and [abc], [a-z] and [!a] match one character of a set. An interface name has at most 15 bytes, and no
// slash or white space.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=64
// +kubebuilder:validation:XValidation:rule="self.matches('^([^\\\\s/\\\\[\\\\]\\\\\\\\]|\\\\[[!^]?([^\\\\s/\\\\[\\\\]\\\\\\\\!^-](-[^\\\\s/\\\\[\\\\]\\\\\\\\!^-])?)+\\\\])+$')",message="must be an interface name or a shell glob such as eth0, ens*, eth? or en[op]*: no white space, slash or backslash, and every [ closed by ] around a set such as [abc], [a-z] or [!a]"
type InterfacePattern string

// InterfaceSelector selects interfaces of a node: those that primary or names selects, without those that match exclude.
// +kubebuilder:validation:XValidation:rule="(has(self.primary) && self.primary) || has(self.names)",message="selects nothing: set primary to true, or list at least one pattern in names, for example [\"eth0\", \"ens*\"]; leave interfaces out to count the primary interface"
type InterfaceSelector struct {
	// primary selects the interfaces of the node's default routes, IPv4 and IPv6. All next hops are used. Routes are
	// read from the main table, and from tables that a rule without conditions refers to.
	// +optional
	Primary bool `json:"primary,omitempty"`

	// names selects interfaces by name or shell glob. An alternative name must be given in full. The loopback
	// interface lo is selected only by its exact name. Interfaces of container networks and of hosts of virtual
	// machines, whose names begin with antrea-, azv, buildkit, cali, cbr0, cilium_, cni, docker, eni, flannel, gke,
	// incusbr, kube-bridge, kube-dummy-if, kube-ipvs, lxc, lxdbr, nerdctl, nodelocaldns, ovn-, podman, veth, virbr or
	// weave, or are br- and 12 hexadecimal digits, are selected only by a pattern that begins with the same letters.
	// Other tunnels and pod interfaces are not selected by a pattern that begins with a wildcard. If interfaces that
	// are stacked on each other are selected, for example a bond and its members, only one of them is counted, so that
	// no frame is counted twice.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Names []InterfacePattern `json:"names,omitempty"`

	// exclude removes interfaces from the selection, by name or shell glob. It takes precedence over primary and names.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Exclude []InterfacePattern `json:"exclude,omitempty"`
}

// XDPCounterSpec defines what to count. An empty spec counts the primary interfaces of every node.
type XDPCounterSpec struct {
	// nodeSelector selects nodes by their labels. If it is empty or not set, all nodes are selected. Nodes on which no agent
	// can run are left out: those whose label kubernetes.io/os is not linux, those of AWS Fargate
	// (eks.amazonaws.com/compute-type=fargate), and those of a Virtual Kubelet (type=virtual-kubelet).
	// +optional
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn', 'Exists', 'DoesNotExist'])",message="operator must be In, NotIn, Exists or DoesNotExist",fieldPath=".matchExpressions"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, (e.operator in ['In', 'NotIn']) == (has(e.values) && size(e.values) > 0))",message="values must list at least one value with the operators In and NotIn, and be left out with Exists and DoesNotExist",fieldPath=".matchExpressions"
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// interfaces selects interfaces on each selected node. If it is not set, the primary interfaces are selected.
	// +optional
	Interfaces *InterfaceSelector `json:"interfaces,omitempty"`

	// attachMode is Auto, Native or Generic. Auto uses the mode in which the interface's traffic loses less, which is
	// native mode for most drivers, and the other one if that is not possible. Native runs the program in the driver,
	// and does not count an interface whose driver does not support XDP. Generic runs the program in the kernel's
	// receive path, which works on any interface.
	// +optional
	// +kubebuilder:default=Auto
	AttachMode AttachMode `json:"attachMode,omitempty"`

	// coexistence is Exclusive or Dispatcher. Exclusive allows one XDP program per interface: an interface that has
	// another program is not counted. Dispatcher shares the interface with the programs of xdp-loader and of other
	// users of libxdp; programs can be added and removed in any order. Dispatcher requires agents that have the
	// capability SYS_ADMIN.
	// +optional
	// +kubebuilder:default=Exclusive
	Coexistence Coexistence `json:"coexistence,omitempty"`

	// reportInterval is how often the nodes report their totals while these change, 1s to 1h. The controller uses a
	// longer interval if the reports of the cluster would exceed its write budget. status.reportInterval is the
	// interval in use.
	// +optional
	// +kubebuilder:default="10s"
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+(\\\\.[0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('1h')",message="must be a duration from 1s to 1h, for example 10s or 1m30s"
	ReportInterval metav1.Duration `json:"reportInterval,omitzero"`

	// suspend stops counting. The totals are kept.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// NodeNumbers holds the numbers of nodes that are selected, ready and failed.
type NodeNumbers struct {
	// selected is the number of nodes that nodeSelector selects, without those on which no agent can run.
	Selected int32 `json:"selected"`
	// ready is the number of selected nodes whose agent reports in time and counts every selected interface.
	Ready int32 `json:"ready"`
	// failed is the number of selected nodes that have a failure. See status.failures.
	Failed int32 `json:"failed"`
}

// InterfaceNumbers holds the numbers of interfaces that are counted, by mode, and of those that are not counted.
type InterfaceNumbers struct {
	// attached is the number of interfaces that are counted: the sum of native and generic.
	Attached int32 `json:"attached"`
	// native is the number of interfaces that are counted in the driver.
	Native int32 `json:"native"`
	// generic is the number of interfaces that are counted in the kernel's receive path.
	Generic int32 `json:"generic"`
	// failed is the number of selected interfaces that are not counted because of a failure.
	Failed int32 `json:"failed"`
	// skipped is the number of selected interfaces that are not counted because their frames are counted on another
	// selected interface, for example a bond whose members are counted. The XDPNodeStates name the other interface.
	// +optional
	Skipped int32 `json:"skipped,omitempty"`
}

// Total is the sum over all protocols. Packets and bytes never decrease.
type Total struct {
	// packets is the number of frames seen at the XDP hook.
	Packets int64 `json:"packets"`
	// bytes is the length of these frames, including the Ethernet header, without the frame check sequence.
	Bytes int64 `json:"bytes"`
	// packetsPerSecond is the sum of the rates of all nodes. The rate of a node is the mean between its last two
	// reports, and zero if the node has stopped reporting.
	// +optional
	PacketsPerSecond int64 `json:"packetsPerSecond"`
	// bitsPerSecond is the rate in bits, 8 times the bytes per second, computed as packetsPerSecond is.
	// +optional
	BitsPerSecond int64 `json:"bitsPerSecond"`
}

// FamilyCounts holds the counts of one family.
type FamilyCounts struct {
	// family is IPv4, IPv6, ARP, Other (any other EtherType) or Malformed.
	Family string `json:"family"`
	// packets is the number of frames.
	Packets int64 `json:"packets"`
	// bytes is the length of these frames, including the Ethernet header.
	Bytes int64 `json:"bytes"`
}

// ProtocolCounts holds the counts of one protocol within one family. The sum of all entries is the total.
type ProtocolCounts struct {
	// family is IPv4, IPv6, ARP, Other or Malformed.
	Family string `json:"family"`
	// protocol is the IANA keyword of the IP protocol, for example TCP, or Unassigned-N if protocol number N has none.
	// For ARP, Other and Malformed it is the name of the family.
	Protocol string `json:"protocol"`
	// number is the IP protocol number, 0 to 255. It is not set for ARP, Other and Malformed.
	// +optional
	Number *int32 `json:"number,omitempty"`
	// packets is the number of frames.
	Packets int64 `json:"packets"`
	// bytes is the length of these frames, including the Ethernet header.
	Bytes int64 `json:"bytes"`
	// packetsPerSecond is the sum of the rates of all nodes. The rate of a node is the mean between its last two
	// reports, and zero if the node has stopped reporting.
	// +optional
	PacketsPerSecond int64 `json:"packetsPerSecond"`
	// bitsPerSecond is the rate in bits, 8 times the bytes per second, computed as packetsPerSecond is.
	// +optional
	BitsPerSecond int64 `json:"bitsPerSecond"`
}

// DepartingNode holds the counts of one XDPNodeState that is about to be deleted, or was deleted while its node still
// exists.
type DepartingNode struct {
	// name is the name of the node and of its XDPNodeState.
	Name string `json:"name"`
	// uid is the UID of the XDPNodeState. While this entry exists, the XDPNodeState itself is not added to the totals.
	UID types.UID `json:"uid"`
	// counts lists for each class its name, the number of frames, and their bytes.
	// +optional
	// +kubebuilder:validation:Type=string
	Counts Counts `json:"counts,omitempty"`
}

// Retired holds the counts of nodes that have left the cluster. They are part of the totals.
type Retired struct {
	// counts is the sum over nodes whose XDPNodeState was deleted. It lists for each class its name, the number of
	// frames, and their bytes.
	// +optional
	// +kubebuilder:validation:Type=string
	Counts Counts `json:"counts,omitempty"`
	// departing lists counts that are part of the totals but not yet of retired.counts: those of nodes that are being
	// retired, and of nodes whose XDPNodeState was deleted by someone else.
	// +optional
	// +listType=atomic
	Departing []DepartingNode `json:"departing,omitempty"`
}

// Failure is one failure on one node.
type Failure struct {
	// node is the name of the node.
	Node string `json:"node"`
	// interface is the name of the interface. It is not set if the failure concerns the whole node.
	// +optional
	Interface string `json:"interface,omitempty"`
	// reason is one of the documented reasons, for example XDPHookInUse.
	Reason string `json:"reason"`
	// message describes the failure and its remedy.
	// +optional
	Message string `json:"message,omitempty"`
}

// Summary is the status formatted for people. The exact numbers are in the other fields.
type Summary struct {
	// nodes is the number of ready nodes and of selected nodes, for example 3/3.
	// +optional
	Nodes string `json:"nodes,omitempty"`
	// interfaces is the number of attached interfaces and of selected interfaces, for example 6/6.
	// +optional
	Interfaces string `json:"interfaces,omitempty"`
	// packets is the total number of packets in powers of 1000, for example 123.5k.
	// +optional
	Packets string `json:"packets,omitempty"`
	// bytes is the total number of bytes in powers of 1024, for example 94.2MiB.
	// +optional
	Bytes string `json:"bytes,omitempty"`
	// rate is the packet rate, for example 1.5k pps.
	// +optional
	Rate string `json:"rate,omitempty"`
	// mode lists the attach modes in use, for example Native, or Native 5, Generic 1.
	// +optional
	Mode string `json:"mode,omitempty"`
	// top lists the protocols with the most packets, over all families, for example TCP 81% UDP 17% ICMP 2%.
	// +optional
	Top string `json:"top,omitempty"`
}

// XDPCounterStatus holds the totals and the conditions. Only the controller writes it.
type XDPCounterStatus struct {
	// observedGeneration is the generation of the spec that this status describes.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions holds Ready, and Reconciling or Stalled while they are true. The reasons are constants of this API.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// nodes holds the numbers of nodes that are selected, ready and failed.
	// +optional
	Nodes *NodeNumbers `json:"nodes,omitempty"`

	// interfaces holds the numbers of interfaces that are counted, by mode, and of those that are not counted.
	// +optional
	Interfaces *InterfaceNumbers `json:"interfaces,omitempty"`

	// total is the sum over all protocols. Its packets and bytes never decrease.
	// +optional
	Total *Total `json:"total,omitempty"`

	// families lists the families that have counts, in a fixed order.
	// +optional
	// +listType=atomic
	Families []FamilyCounts `json:"families,omitempty"`

	// protocols lists the protocols that have counts, sorted by packets, the largest first.
	// +optional
	// +listType=atomic
	Protocols []ProtocolCounts `json:"protocols,omitempty"`

	// retired holds the counts of nodes that have left the cluster. They are part of the totals.
	// +optional
	Retired *Retired `json:"retired,omitempty"`

	// failures lists the first 10 failures, sorted by node and interface. nodes.failed and interfaces.failed are the
	// total numbers.
	// +optional
	// +listType=atomic
	Failures []Failure `json:"failures,omitempty"`

	// summary is the status formatted for people.
	// +optional
	Summary *Summary `json:"summary,omitempty"`

	// reportInterval is the interval at which the nodes report now. It is longer than spec.reportInterval if the
	// reports of the cluster would exceed the controller's write budget.
	// +optional
	ReportInterval *metav1.Duration `json:"reportInterval,omitempty"`

	// lastReportTime is when the API server stored the latest node report that is part of the totals, by its clock.
	// +optional
	LastReportTime *metav1.Time `json:"lastReportTime,omitempty"`
}

// XDPCounter counts every packet that the selected interfaces of the selected nodes receive, per protocol. An XDP
// program counts the packets and passes each of them on unchanged.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=xdpc,categories=xdp
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether every selected interface of every selected node is counted"
// +kubebuilder:printcolumn:name="Nodes",type=string,JSONPath=`.status.summary.nodes`,description="Number of ready nodes / selected nodes"
// +kubebuilder:printcolumn:name="Interfaces",type=string,JSONPath=`.status.summary.interfaces`,description="Number of attached interfaces / selected interfaces"
// +kubebuilder:printcolumn:name="Packets",type=string,JSONPath=`.status.summary.packets`,description="Packets counted, in powers of 1000"
// +kubebuilder:printcolumn:name="Bytes",type=string,JSONPath=`.status.summary.bytes`,description="Bytes counted, in powers of 1024"
// +kubebuilder:printcolumn:name="Top",type=string,JSONPath=`.status.summary.top`,description="The protocols with the most packets"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`,description="Time since creation"
// +kubebuilder:printcolumn:name="Rate",type=string,JSONPath=`.status.summary.rate`,priority=1,description="Packets per second over the last report interval"
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.status.summary.mode`,priority=1,description="The attach modes in use"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1,description="The reason of the Ready condition"
type XDPCounter struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec defines what to count. All its fields are optional.
	// +optional
	// +kubebuilder:default={}
	Spec XDPCounterSpec `json:"spec,omitzero"`

	// status holds the totals and the conditions.
	// +optional
	// +kubebuilder:default={conditions: {{type: "Ready", status: "Unknown", reason: "Pending", message: "Waiting for the controller", lastTransitionTime: "1970-01-01T00:00:00Z"}}}
	Status XDPCounterStatus `json:"status,omitzero"`
}

// XDPCounterList is a list of XDPCounters.
// +kubebuilder:object:root=true
type XDPCounterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []XDPCounter `json:"items"`
}
