// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds the two kinds of the API group xdp-operator.io: XDPCounter, which users create and read, and
// XDPNodeState, through which the controller and the agent of one node communicate.
//
// +kubebuilder:object:generate=true
// +groupName=xdp-operator.io
// +kubebuilder:ac:generate=true
// +kubebuilder:ac:output:package="applyconfiguration"
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of the kinds in this package.
var GroupVersion = schema.GroupVersion{Group: "xdp-operator.io", Version: "v1alpha1"}

// SchemeGroupVersion is GroupVersion under the name that generated code uses.
var SchemeGroupVersion = GroupVersion

// AddToScheme registers the kinds of this package.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&XDPCounter{}, &XDPCounterList{},
		&XDPNodeState{}, &XDPNodeStateList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
