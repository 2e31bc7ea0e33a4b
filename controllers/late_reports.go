package controllers

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// An agent counts as silent when what it owes (XDPNodeState.ReportDeadline) is late, or when its node is dead. Nothing here
// depends on what was found before, so a controller that has just started finds the same; and nothing but a report, or the
// node's return, ends a silence, so that none comes and goes.

// lateFrom returns when the agent counts as silent if no other report of it comes. unreachable is since when the node
// is (see unreachableSince), zero if it is not.
func lateFrom(state *v1alpha1.XDPNodeState, unreachable time.Time) time.Time {
	at := state.ReportDeadline()
	if gone := unreachableFrom(state, unreachable); !gone.IsZero() && gone.Before(at) {
		return gone
	}
	return at
}

// unreachableFrom returns when the agent counts as silent because its node is out of reach, zero if it does not.
func unreachableFrom(state *v1alpha1.XDPNodeState, unreachable time.Time) time.Time {
	// An agent that has reported since is alive, whatever has become of its kubelet. Kubernetes' time is in whole seconds.
	if t := state.Status.ReportTime; unreachable.IsZero() || t != nil && !t.Time.Before(unreachable.Add(time.Second)) {
		return time.Time{}
	}
	return unreachable.Add(v1alpha1.ReportTolerance)
}

// silence says of an agent that counts as silent why it does.
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

// unreachableSince returns since when the cluster hears nothing more from a node's kubelet, zero if it does. That the
// kubelet calls its node not ready says nothing of the agent, and neither does that none was ever heard of.
func unreachableSince(node *corev1.Node) time.Time {
	const stopped = "NodeStatusUnknown" // by pkg/controller/nodelifecycle of Kubernetes
	if ready := readyOf(node); ready != nil && ready.Status == corev1.ConditionUnknown && ready.Reason == stopped {
		return ready.LastTransitionTime.Time
	}
	return time.Time{}
}

func readyOf(node *corev1.Node) *corev1.NodeCondition {
	for i := range node.Status.Conditions {
		if c := &node.Status.Conditions[i]; c.Type == corev1.NodeReady {
			return c
		}
	}
	return nil
}

// unreachableNodes returns the nodes that are out of reach, and since when.
func unreachableNodes(nodes []corev1.Node) map[string]time.Time {
	list := map[string]time.Time{}
	for i := range nodes {
		if t := unreachableSince(&nodes[i]); !t.IsZero() {
			list[nodes[i].Name] = t
		}
	}
	return list
}

// untilNextLate returns how long it takes until another agent counts as silent if it does not report, zero if none
// is left.
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
