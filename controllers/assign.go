// SPDX-License-Identifier: Apache-2.0

// Package controllers has the two reconcilers of the controller. NodeStateReconciler writes to each XDPNodeState which
// XDPCounters select the node. XDPCounterReconciler summarizes the reports of the agents in the status of each XDPCounter.
package controllers

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// nodeSelector returns the node selector of a counter. A counter without one selects all nodes. With an error the selector
// matches no node. The schema of the API cannot validate label keys and values, because their length is not limited there.
func nodeSelector(c *v1alpha1.XDPCounter) (labels.Selector, error) {
	if c.Spec.NodeSelector == nil {
		return labels.Everything(), nil
	}
	selector, err := metav1.LabelSelectorAsSelector(c.Spec.NodeSelector)
	if err != nil {
		return labels.Nothing(), fmt.Errorf("spec.nodeSelector: %w", err)
	}
	return selector, nil
}

// canRunAgent reports whether an agent can run on the node. A counter selects no other nodes. It cannot run on
//
//   - nodes of another operating system than Linux. A node without the label kubernetes.io/os counts as Linux.
//     Source: https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-os
//   - nodes of AWS Fargate, which takes neither DaemonSets nor privileged containers.
//     Source: https://docs.aws.amazon.com/eks/latest/userguide/fargate.html
//   - nodes of a Virtual Kubelet, for example of AKS and of Alibaba Cloud, which have no kernel of their own. Source:
//     https://github.com/virtual-kubelet/virtual-kubelet/blob/master/cmd/virtual-kubelet/internal/commands/root/node.go
//
// The affinity of the agents' DaemonSet in the chart excludes the same nodes.
func canRunAgent(node *corev1.Node) bool {
	os, known := node.Labels[corev1.LabelOSStable]
	return (!known || os == string(corev1.Linux)) &&
		node.Labels["eks.amazonaws.com/compute-type"] != "fargate" &&
		node.Labels["type"] != "virtual-kubelet"
}

// assign returns the spec of a node's state. It lists the counters that select the node, and as inactive those that only have
// an account there, the oldest first. Without counters no node state is needed. state is the present state, nil if there is
// none. nodes is how many nodes share the budget.
func assign(counters []v1alpha1.XDPCounter, node *corev1.Node, state *v1alpha1.XDPNodeState, nodes int, budget Budget) v1alpha1.XDPNodeStateSpec {
	var spec v1alpha1.XDPNodeStateSpec
	shortest := time.Hour
	hasAgent := canRunAgent(node)
	for _, c := range byAge(counters) {
		selector, _ := nodeSelector(&c) // the counter's status has the error
		active := hasAgent && selector.Matches(labels.Set(node.Labels)) && !c.Spec.Suspend && c.DeletionTimestamp.IsZero()
		if !active && !hasAccount(state, c.UID) {
			continue
		}
		entry := v1alpha1.NodeCounter{
			Name:       c.Name,
			UID:        c.UID,
			Generation: c.Generation,
			Inactive:   !active,
			Primary:    true,
		}
		if c.Spec.AttachMode != v1alpha1.AttachAuto {
			entry.AttachMode = c.Spec.AttachMode
		}
		if c.Spec.Coexistence == v1alpha1.CoexistenceDispatcher {
			entry.Coexistence = c.Spec.Coexistence
		}
		if i := c.Spec.Interfaces; i != nil {
			entry.Primary, entry.Names, entry.Exclude = i.Primary, names(i.Names), names(i.Exclude)
		}
		spec.Counters = append(spec.Counters, entry)
		if active {
			shortest = min(shortest, wantedInterval(&c))
		}
	}
	spec.ReportInterval = metav1.Duration{Duration: budget.interval(shortest, nodes)}
	spec.ReportBytesPerSecond = budget.bytesPerNode(nodes)
	return spec
}

func names(patterns []v1alpha1.InterfacePattern) []string {
	var names []string
	for _, p := range patterns {
		names = append(names, string(p))
	}
	return names
}

// hasAccount reports whether the node's agent has an account of the counter, or may still open one because it has not seen
// the present spec.
func hasAccount(state *v1alpha1.XDPNodeState, uid types.UID) bool {
	if state == nil {
		return false
	}
	if state.Status.ObservedGeneration < state.Generation {
		return state.Spec.Entry(uid) != nil
	}
	return state.Account(uid) != nil
}

// detached reports whether nothing is attached on the node and the spec lists no counter. An agent attaches nothing before
// its first report.
func detached(state *v1alpha1.XDPNodeState) bool {
	return state.Status.ObservedGeneration == 0 ||
		state.Status.ObservedGeneration == state.Generation && len(state.Spec.Counters) == 0 && len(state.Status.Interfaces) == 0
}

// wantedInterval returns spec.reportInterval of the counter, or the default of the API.
func wantedInterval(c *v1alpha1.XDPCounter) time.Duration {
	return cmp.Or(c.Spec.ReportInterval.Duration, 10*time.Second)
}

// byAge returns the counters sorted by age, the oldest first, and then by name.
func byAge(counters []v1alpha1.XDPCounter) []v1alpha1.XDPCounter {
	return slices.SortedFunc(slices.Values(counters), func(a, b v1alpha1.XDPCounter) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}
