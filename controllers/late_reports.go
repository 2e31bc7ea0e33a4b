// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// lateFailure returns why an agent is late.
func lateFailure(state *v1alpha1.XDPNodeState, seen sighting) v1alpha1.Failure {
	reason, cause := v1alpha1.ReasonAgentNotReporting, ""
	switch {
	case seen.becauseUnreachable():
		reason = v1alpha1.ReasonNodeUnreachable
		cause = "the node has been unreachable since " + rfc3339(seen.unreachable)
	case state.Status.ReportTime == nil:
		cause = "its agent has never reported"
	case seen.owes:
		cause = "its agent has not applied the spec of " + rfc3339(state.SpecUpdateTime())
	default:
		cause = "its agent has not reported since " + rfc3339(state.LastReported())
	}
	return v1alpha1.Failure{Node: state.Name, Reason: reason, Message: v1alpha1.FailureMessage(reason, cause, "")}
}

// unreachableSince returns the time since when the kubelet of a node has not reported to the cluster, by the clock of
// Kubernetes' controller manager, zero if it has. A node that its kubelet reports as not ready is reachable. So is a node whose
// kubelet has never reported: nothing is known about its agent.
func unreachableSince(node *corev1.Node) time.Time {
	const stopped = "NodeStatusUnknown" // set by pkg/controller/nodelifecycle of Kubernetes
	if ready := readyOf(node); ready != nil && ready.Status == corev1.ConditionUnknown && ready.Reason == stopped {
		return ready.LastTransitionTime.Time
	}
	return time.Time{}
}

// readyOf returns the Ready condition of a node, nil if it has none.
func readyOf(node *corev1.Node) *corev1.NodeCondition {
	for i := range node.Status.Conditions {
		if c := &node.Status.Conditions[i]; c.Type == corev1.NodeReady {
			return c
		}
	}
	return nil
}

// unreachableNodes returns the unreachable nodes, and since when they are.
func unreachableNodes(nodes []corev1.Node) map[string]time.Time {
	list := map[string]time.Time{}
	for i := range nodes {
		if t := unreachableSince(&nodes[i]); !t.IsZero() {
			list[nodes[i].Name] = t
		}
	}
	return list
}

func rfc3339(t time.Time) string { return metav1.NewTime(t).UTC().Format(time.RFC3339) }
