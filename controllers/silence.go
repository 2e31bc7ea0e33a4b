package controllers

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// An agent owes a report: one that follows its spec at once, the next one an interval after one that tells of traffic,
// and a heartbeat after one that tells of none. It counts as silent when what it owes is late, or when its node is dead.
// Nothing here depends on what was found before, so a controller that has just started finds the same; and nothing but a
// report, or the node's return, ends a silence, so that none comes and goes.

const (
	// firstWord is how long an agent may take to follow a spec that was changed. A node that has just joined still has
	// to get the image.
	firstWord = 3 * time.Minute
	// tolerance is how late a report may be, and how long a node may be out of reach.
	tolerance = time.Minute
)

// silentFrom returns when the agent counts as silent if no other report of it comes, and why. unreachable is since when
// the node is (see unreachableSince), zero if it is not.
func silentFrom(state *v1alpha1.XDPNodeState, unreachable time.Time) (at time.Time, failure v1alpha1.Failure) {
	const ask = "is the agent's pod running on the node?"
	interval := state.Spec.ReportInterval.Duration
	last, reported := state.CreationTimestamp.Time, state.Status.ReportTime != nil
	if reported {
		last = state.Status.ReportTime.Time
	}
	failure = v1alpha1.Failure{Node: state.Name, Reason: v1alpha1.ReasonAgentNotReporting}
	owed := 2 * v1alpha1.HeartbeatInterval(interval)
	if moving(state) {
		owed = 2*interval + tolerance
	}
	switch {
	case state.Status.ObservedGeneration != state.Generation:
		told := state.CreationTimestamp.Time
		if t := state.Spec.UpdateTime; t != nil {
			told = t.Time
		}
		at = later(told, last).Add(firstWord)
		failure.Message = "its agent does not follow what it was told at " + inUTC(told) + ": " + ask
		if !reported {
			failure.Message = "its agent has never reported: " + ask
		}
	default:
		at = last.Add(owed)
		failure.Message = fmt.Sprintf("its agent has not reported since %s: %s", inUTC(last), ask)
	}
	// An agent that has reported since is alive, whatever has become of its kubelet.
	if unreachable.IsZero() || reported && last.After(unreachable) {
		return at, failure
	}
	if gone := unreachable.Add(tolerance); gone.Before(at) {
		at = gone
		failure.Reason = v1alpha1.ReasonNodeUnreachable
		failure.Message = "the node has been out of reach since " + inUTC(unreachable) + ": see kubectl describe node " + state.Name
	}
	return at, failure
}

// moving reports whether the agent told of traffic. Then its next report differs, if only by its rates, and is due after
// the interval.
func moving(state *v1alpha1.XDPNodeState) bool {
	for _, a := range state.Status.Accounts {
		if a.PacketsPerSecond != 0 || a.BitsPerSecond != 0 {
			return true
		}
	}
	return false
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

// nextSilence returns how long it takes until another agent counts as silent if it does not report, zero if none
// is left.
func nextSilence(nodes []corev1.Node, states []v1alpha1.XDPNodeState, now time.Time) time.Duration {
	var wait time.Duration
	unreachable := unreachableNodes(nodes)
	for i := range states {
		at, _ := silentFrom(&states[i], unreachable[states[i].Name])
		if left := at.Sub(now) + time.Second; left > 0 && (wait == 0 || left < wait) {
			wait = left
		}
	}
	return wait
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func inUTC(t time.Time) string { return metav1.NewTime(t).UTC().Format(time.RFC3339) }
