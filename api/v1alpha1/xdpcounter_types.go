package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// AttachMode says how the counting program is attached to an interface.
// +kubebuilder:validation:Enum=Auto;Native;Generic
type AttachMode string

// The attach modes. Auto is only ever asked for; status reports Native or Generic.
const (
	AttachAuto    AttachMode = "Auto"
	AttachNative  AttachMode = "Native"
	AttachGeneric AttachMode = "Generic"
)

// Coexistence says how the XDP hook of an interface is held.
// +kubebuilder:validation:Enum=Exclusive;Dispatcher
type Coexistence string

// The ways to hold a hook.
const (
	// CoexistenceExclusive holds it by a link: nobody else's program is displaced by it, and it cannot be displaced.
	CoexistenceExclusive Coexistence = "Exclusive"
	// CoexistenceDispatcher shares it by the protocol of libxdp.
	CoexistenceDispatcher Coexistence = "Dispatcher"
)

// InterfacePattern is the name of a network interface or a shell glob over names: * any characters, ? any one,
// [abc], [a-z] and [!a] one of a set. Interface names have at most 15 bytes and no slash or white space.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=64
// +kubebuilder:validation:XValidation:rule="self.matches('^([^\\\\s/\\\\[\\\\]\\\\\\\\]|\\\\[[!^]?([^\\\\s/\\\\[\\\\]\\\\\\\\!^-](-[^\\\\s/\\\\[\\\\]\\\\\\\\!^-])?)+\\\\])+$')",message="must be an interface name or a shell glob such as eth0, ens*, eth? or en[op]*: no white space, slash or backslash, and every [ closed by ] around a set such as [abc], [a-z] or [!a]"
type InterfacePattern string

// InterfaceSelector selects interfaces of a node: the union of primary and names, less exclude.
// +kubebuilder:validation:XValidation:rule="(has(self.primary) && self.primary) || has(self.names)",message="selects nothing: set primary to true, or list at least one pattern in names, for example [\"eth0\", \"ens*\"]; leave interfaces out to count the primary interface"
type InterfaceSelector struct {
	// primary selects the interfaces through which a default route leaves, IPv4 or IPv6: all next hops of the
	// routes of the main table, and of tables that a rule without conditions leads to.
	// +optional
	Primary bool `json:"primary,omitempty"`

	// names selects interfaces by name or shell glob, or by an alternative name in full. The loopback interface
	// lo is matched by its exact name only. What container networks make (azv, cali, cilium_, cni, docker, eni,
	// flannel, gke, kube-bridge, kube-ipvs, lxc, nodelocaldns, ovn-, veth) is matched only by a pattern that
	// begins with these letters; tunnels and pods' ends of other names are not matched by one that begins with
	// a wildcard. Of interfaces stacked on one another only one is counted, so that no frame counts twice.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Names []InterfacePattern `json:"names,omitempty"`

	// exclude takes interfaces out again, by name or shell glob. It wins over primary and names.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Exclude []InterfacePattern `json:"exclude,omitempty"`
}

// XDPCounterSpec says what to count. An empty spec counts the primary interface of every node.
type XDPCounterSpec struct {
	// nodeSelector selects the nodes to count on by their labels. Empty or left out: all nodes.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn', 'Exists', 'DoesNotExist'])",message="operator must be In, NotIn, Exists or DoesNotExist",fieldPath=".matchExpressions"
	// +kubebuilder:validation:XValidation:rule="!has(self.matchExpressions) || self.matchExpressions.all(e, (e.operator in ['In', 'NotIn']) == (has(e.values) && size(e.values) > 0))",message="values must list at least one value with the operators In and NotIn, and be left out with Exists and DoesNotExist",fieldPath=".matchExpressions"
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// interfaces selects the interfaces of each selected node. Left out: the primary ones.
	// +optional
	Interfaces *InterfaceSelector `json:"interfaces,omitempty"`

	// attachMode is Auto (native where the driver can, else generic), Native (in the driver or not at all) or
	// Generic (in the kernel's receive path, on any interface).
	// +optional
	// +kubebuilder:default=Auto
	AttachMode AttachMode `json:"attachMode,omitempty"`

	// coexistence is Exclusive (one program on an interface: where there is another, nothing is counted) or
	// Dispatcher (beside the programs of xdp-loader and all that use libxdp, of which either side can come and go
	// first). Dispatcher needs agents with the capability SYS_ADMIN.
	// +optional
	// +kubebuilder:default=Exclusive
	Coexistence Coexistence `json:"coexistence,omitempty"`

	// reportInterval is how old the totals in status may be, 1s to 1h. The controller stretches it where the
	// cluster's reports would exceed its write budget, and says so in status.reportInterval.
	// +optional
	// +kubebuilder:default="10s"
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+(\\\\.[0-9]+)?(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('1h')",message="must be a duration from 1s to 1h, for example 10s or 1m30s"
	ReportInterval metav1.Duration `json:"reportInterval,omitzero"`

	// suspend stops the counting and keeps the totals.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// NodeNumbers says how many nodes are selected and how they fare.
type NodeNumbers struct {
	// selected is the number of nodes that nodeSelector selects.
	Selected int32 `json:"selected"`
	// ready is the number of selected nodes whose agent reports in time and counts every selected interface.
	Ready int32 `json:"ready"`
	// failed is the number of selected nodes on which something is wrong: see failures.
	Failed int32 `json:"failed"`
}

// InterfaceNumbers says how many interfaces are counted, and how.
type InterfaceNumbers struct {
	// attached is the number of interfaces that are being counted: native plus generic.
	Attached int32 `json:"attached"`
	// native is the number of interfaces counted in the driver.
	Native int32 `json:"native"`
	// generic is the number of interfaces counted in the kernel's receive path.
	Generic int32 `json:"generic"`
	// failed is the number of selected interfaces that are not counted.
	Failed int32 `json:"failed"`
	// skipped is the number of selected interfaces that are left out because their frames are counted at another
	// selected one, as those of a bond are at its members. The XDPNodeStates say where.
	// +optional
	Skipped int32 `json:"skipped,omitempty"`
}

// Total is what was counted in all classes together. Packets and bytes never fall.
type Total struct {
	// packets is the number of frames seen at the XDP hook.
	Packets int64 `json:"packets"`
	// bytes is their length from the Ethernet header on, without the frame check sequence.
	Bytes int64 `json:"bytes"`
	// packetsPerSecond is the sum of the nodes' rates, each the mean between the node's last two
	// reports; zero for a node that has gone silent.
	// +optional
	PacketsPerSecond int64 `json:"packetsPerSecond"`
	// bitsPerSecond is the same in bits: 8 times the bytes.
	// +optional
	BitsPerSecond int64 `json:"bitsPerSecond"`
}

// FamilyCounts is what was counted in one family.
type FamilyCounts struct {
	// family is IPv4, IPv6, ARP, Other (any other ethertype) or Malformed.
	Family string `json:"family"`
	// packets is the number of frames.
	Packets int64 `json:"packets"`
	// bytes is their length from the Ethernet header on.
	Bytes int64 `json:"bytes"`
}

// ProtocolCounts is what was counted of one protocol within one family. The packets and bytes of all entries
// add up to the total.
type ProtocolCounts struct {
	// family is the family in which the protocol was seen: IPv4, IPv6, or ARP, Other, Malformed for themselves.
	Family string `json:"family"`
	// protocol is the IANA keyword, for example TCP, Unassigned-N where there is none, or the family's name for
	// ARP, Other and Malformed.
	Protocol string `json:"protocol"`
	// number is the IP protocol number, 0 to 255; left out for ARP, Other and Malformed.
	// +optional
	Number *int32 `json:"number,omitempty"`
	// packets is the number of frames.
	Packets int64 `json:"packets"`
	// bytes is their length from the Ethernet header on.
	Bytes int64 `json:"bytes"`
	// packetsPerSecond is the sum of the nodes' rates, each the mean between the node's last two
	// reports; zero for a node that has gone silent.
	// +optional
	PacketsPerSecond int64 `json:"packetsPerSecond"`
	// bitsPerSecond is the same in bits: 8 times the bytes.
	// +optional
	BitsPerSecond int64 `json:"bitsPerSecond"`
}

// DepartingNode is the share of one XDPNodeState that is about to go, or was deleted while its node is still there.
type DepartingNode struct {
	// name is the name of the node and of its XDPNodeState.
	Name string `json:"name"`
	// uid is the UID of the XDPNodeState. While an entry exists the object itself, if it is there, is not added to the totals.
	UID types.UID `json:"uid"`
	// counts is the share: for each class its name, the frames and their bytes.
	// +optional
	// +kubebuilder:validation:Type=string
	Counts Counts `json:"counts,omitempty"`
}

// Retired is the share of nodes that have left the cluster. It is part of the totals.
type Retired struct {
	// counts is the share of nodes that are gone with their XDPNodeState: for each class its name, the frames and their
	// bytes.
	// +optional
	// +kubebuilder:validation:Type=string
	Counts Counts `json:"counts,omitempty"`
	// departing lists the shares that are part of the totals and not of counts yet: of nodes that are just being retired,
	// and of nodes whose XDPNodeState somebody deleted.
	// +optional
	// +listType=atomic
	Departing []DepartingNode `json:"departing,omitempty"`
}

// Failure is one thing that is wrong on one node.
type Failure struct {
	// node is the name of the node.
	Node string `json:"node"`
	// interface is the name of the interface; left out if the failure is the node's.
	// +optional
	Interface string `json:"interface,omitempty"`
	// reason is one of the documented reasons, for example XDPHookInUse.
	Reason string `json:"reason"`
	// message says what is wrong and what to do.
	// +optional
	Message string `json:"message,omitempty"`
}

// Summary is the status in words for people; the exact integers stand beside it.
type Summary struct {
	// nodes is ready/selected, for example 3/3.
	// +optional
	Nodes string `json:"nodes,omitempty"`
	// interfaces is attached/selected, for example 6/6.
	// +optional
	Interfaces string `json:"interfaces,omitempty"`
	// packets is the total in powers of 1000, for example 123.5k.
	// +optional
	Packets string `json:"packets,omitempty"`
	// bytes is the total in powers of 1024, for example 94.2MiB.
	// +optional
	Bytes string `json:"bytes,omitempty"`
	// rate is the packet rate, for example 1.5k pps.
	// +optional
	Rate string `json:"rate,omitempty"`
	// mode is how the interfaces are attached, for example Native, or Native 5, Generic 1.
	// +optional
	Mode string `json:"mode,omitempty"`
	// top names the largest protocols by packets, families taken together, for example TCP 81% UDP 17% ICMP 2%.
	// +optional
	Top string `json:"top,omitempty"`
}

// XDPCounterStatus is what was counted and what is true. The controller alone writes it.
type XDPCounterStatus struct {
	// observedGeneration is the generation of the spec that this status tells of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions: Ready, with Reconciling and Stalled while abnormal. The reasons are constants of this API.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// nodes says how many nodes are selected and how they fare.
	// +optional
	Nodes *NodeNumbers `json:"nodes,omitempty"`

	// interfaces says how many interfaces are counted, and how.
	// +optional
	Interfaces *InterfaceNumbers `json:"interfaces,omitempty"`

	// total is what was counted in all classes together. Its packets and bytes never fall.
	// +optional
	Total *Total `json:"total,omitempty"`

	// families holds the families in which something was counted, in a fixed order.
	// +optional
	// +listType=atomic
	Families []FamilyCounts `json:"families,omitempty"`

	// protocols holds the protocols that were counted, the most packets first.
	// +optional
	// +listType=atomic
	Protocols []ProtocolCounts `json:"protocols,omitempty"`

	// retired is the share of nodes that have left the cluster, which the totals keep.
	// +optional
	Retired *Retired `json:"retired,omitempty"`

	// failures lists the first 10 things that are wrong, sorted by node and interface. How many there are in
	// all is in nodes.failed and interfaces.failed.
	// +optional
	// +listType=atomic
	Failures []Failure `json:"failures,omitempty"`

	// summary is the status in words for people.
	// +optional
	Summary *Summary `json:"summary,omitempty"`

	// reportInterval is the interval at which the nodes report now. It is longer than the spec's where the
	// cluster's reports would exceed the controller's write budget.
	// +optional
	ReportInterval *metav1.Duration `json:"reportInterval,omitempty"`

	// lastReportTime is when the latest report of a node that is part of the totals was made.
	// +optional
	LastReportTime *metav1.Time `json:"lastReportTime,omitempty"`
}

// XDPCounter counts every packet that the selected interfaces of the selected nodes receive, per protocol, in
// an XDP program that passes every packet untouched.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=xdpc,categories=xdp
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`,description="Whether every selected interface of every selected node is being counted"
// +kubebuilder:printcolumn:name="Nodes",type=string,JSONPath=`.status.summary.nodes`,description="Nodes ready/selected"
// +kubebuilder:printcolumn:name="Interfaces",type=string,JSONPath=`.status.summary.interfaces`,description="Interfaces attached/selected"
// +kubebuilder:printcolumn:name="Packets",type=string,JSONPath=`.status.summary.packets`,description="Packets counted, in powers of 1000"
// +kubebuilder:printcolumn:name="Bytes",type=string,JSONPath=`.status.summary.bytes`,description="Bytes counted, in powers of 1024"
// +kubebuilder:printcolumn:name="Top",type=string,JSONPath=`.status.summary.top`,description="The largest protocols by packets"
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`,description="How long ago it was made"
// +kubebuilder:printcolumn:name="Rate",type=string,JSONPath=`.status.summary.rate`,priority=1,description="Packets per second over the last report interval"
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.status.summary.mode`,priority=1,description="How the interfaces are attached"
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1,description="Why it is ready or not"
type XDPCounter struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says what to count. Everything in it is optional.
	// +optional
	// +kubebuilder:default={}
	Spec XDPCounterSpec `json:"spec,omitzero"`

	// status is what was counted and what is true.
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
