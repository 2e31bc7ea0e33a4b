// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// An agent is late if its next report is overdue (XDPNodeState.ReportDeadline) or if its node is unreachable. The result depends
// on the present objects only, so a controller that has just started has the same result. An agent is late until it reports
// or its node is reachable again, so that the state does not change back and forth.

// lateFrom returns when the agent is late if it does not report again. unreachable is the time since when the node is
// unreachable (see unreachableSince), zero if it is reachable.
func lateFrom(state *v1alpha1.XDPNodeState, unreachable time.Time) time.Time {
	at := state.ReportDeadline()
	if gone := unreachableFrom(state, unreachable); !gone.IsZero() && gone.Before(at) {
		return gone
	}
	return at
}

// unreachableFrom returns when the agent is late because its node is unreachable, zero if it is not for this reason.
func unreachableFrom(state *v1alpha1.XDPNodeState, unreachable time.Time) time.Time {
	// If the agent has reported since then, it runs, even if its kubelet does not. Kubernetes' time is in whole seconds.
	if t := state.Status.ReportTime; unreachable.IsZero() || t != nil && !t.Time.Before(unreachable.Add(time.Second)) {
		return time.Time{}
	}
	return unreachable.Add(v1alpha1.ReportTolerance)
}

// lateFailure returns why an agent is late.
func lateFailure(state *v1alpha1.XDPNodeState, unreachable time.Time) v1alpha1.Failure {
	reason, cause := v1alpha1.ReasonAgentNotReporting, ""
	switch gone := unreachableFrom(state, unreachable); {
	case !gone.IsZero() && gone.Before(state.ReportDeadline()):
		reason = v1alpha1.ReasonNodeUnreachable
		cause = "the node has been unreachable since " + rfc3339(unreachable)
	case state.Status.ReportTime == nil:
		cause = "its agent has never reported"
	case state.Status.ObservedGeneration != state.Generation:
		cause = "its agent has not applied the spec of " + rfc3339(state.SpecUpdateTime())
	default:
		cause = "its agent has not reported since " + rfc3339(state.Status.ReportTime.Time)
	}
	return v1alpha1.Failure{Node: state.Name, Reason: reason, Message: v1alpha1.FailureMessage(reason, cause, "")}
}

// unreachableSince returns the time since when the kubelet of a node has not reported to the cluster, zero if it has. A node
// that its kubelet reports as not ready is reachable. So is a node whose kubelet has never reported: nothing is known about
// its agent.
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

// untilNextLate returns after how much time the next agent is late if it does not report, zero if all are late already.
func untilNextLate(nodes []corev1.Node, states []v1alpha1.XDPNodeState, now time.Time) time.Duration {
	var wait time.Duration
	unreachable := unreachableNodes(nodes)
	for i := range states {
		at := lateFrom(&states[i], unreachable[states[i].Name])
		if left := at.Sub(now) + time.Second; left > 0 && (wait == 0 || left < wait) {
			wait = left
		}
	}
	return wait
}

func rfc3339(t time.Time) string { return metav1.NewTime(t).UTC().Format(time.RFC3339) }
