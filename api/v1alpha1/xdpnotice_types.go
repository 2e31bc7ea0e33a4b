package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NoticeName is the name of the one XDPNotice that there is.
const NoticeName = "all-nodes"

// XDPNoticeSpec is what the controller tells all agents at once.
type XDPNoticeSpec struct {
	// counters lists, the oldest first, the XDPCounters that select every node. Of an entry here and one in an XDPNodeState
	// that does not take this notice in the one that follows the higher generation of the XDPCounter is right, and that of
	// the XDPNodeState where both follow the same.
	// +optional
	// +listType=atomic
	Counters []NodeCounter `json:"counters,omitempty"`
}

// XDPNotice tells the agents of all nodes of the XDPCounters that select every node, in one write. Each XDPNodeState tells
// the same, but there are as many of them as nodes: in a large cluster the last is written long after the first. The
// controller writes it, and deletes it with the last XDPCounter; agents read it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=xnt,categories=xdp
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`,description="How long ago it was made"
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'all-nodes'",message="there is one XDPNotice, named all-nodes; the controller writes it"
type XDPNotice struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what the controller tells all agents.
	// +optional
	Spec XDPNoticeSpec `json:"spec,omitzero"`
}

// XDPNoticeList is a list of XDPNotices.
// +kubebuilder:object:root=true
type XDPNoticeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []XDPNotice `json:"items"`
}
