// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/internal/format"
)

// ready returns the Ready condition. The reason says what kind of problem there is. The message says how many nodes it
// affects, names the first of them, and unless the status is True ends with what to do, from the table of reasons.
func (s *nodeSummary) ready(c *v1alpha1.XDPCounter) metav1.Condition {
	condition := func(status metav1.ConditionStatus, reason, message string, args ...any) metav1.Condition {
		message = fmt.Sprintf(message, args...)
		if status != metav1.ConditionTrue {
			message = v1alpha1.FailureMessage(reason, message, "")
		}
		return metav1.Condition{Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: message}
	}
	of := func(n int) string {
		return fmt.Sprintf("%d of %s", n, format.Count(int(s.nodes.Selected), "node has", "nodes have"))
	}
	switch {
	case s.invalid != nil:
		return condition(metav1.ConditionFalse, v1alpha1.ReasonInvalidNodeSelector, "%v", s.invalid)
	case len(s.leaving) > 0 && len(s.failures) == 0 && len(s.pending) == 0:
		return condition(metav1.ConditionUnknown, v1alpha1.ReasonPending, "waiting for %s to stop counting: %s",
			format.Count(len(s.leaving), "node", "nodes"), format.FirstFew(s.leaving))
	case c.Spec.Suspend:
		return condition(metav1.ConditionTrue, v1alpha1.ReasonSuspended, "counting is suspended; the totals are kept")
	case s.nodes.Selected == 0 && len(s.leftOut) > 0:
		return condition(metav1.ConditionFalse, v1alpha1.ReasonNoNodesSelected, "spec.nodeSelector selects only nodes on which no agent can run (%s): %s",
			notForAgents, format.FirstFew(s.leftOut))
	case s.nodes.Selected == 0:
		return condition(metav1.ConditionFalse, v1alpha1.ReasonNoNodesSelected, "spec.nodeSelector selects no node")
	case len(s.failures) == 0 && len(s.pending) > 0:
		return condition(metav1.ConditionUnknown, v1alpha1.ReasonPending, "%s not applied the spec yet: %s",
			of(len(s.pending)), format.FirstFew(s.pending))
	case len(s.failures) == 0:
		return condition(metav1.ConditionTrue, v1alpha1.ReasonAllInterfacesAttached, "%s being counted on %s%s",
			format.Count(int(s.interfaces.Attached), "interface is", "interfaces are"),
			format.Count(int(s.nodes.Ready), "node", "nodes"), s.remarks())
	case len(s.late) == len(s.failures):
		return condition(metav1.ConditionFalse, v1alpha1.ReasonAgentNotReporting, "%s not reported in time: %s",
			of(len(s.late)), format.FirstFew(s.late))
	case s.unmatched() == len(s.failures) && s.interfaces.Attached == 0:
		return condition(metav1.ConditionFalse, v1alpha1.ReasonNoInterfacesMatched, "spec.interfaces selects no interface on %s: %s",
			format.Count(len(s.failures), "node", "nodes"), format.FirstFew(s.failureNames(false)))
	}
	reason := v1alpha1.ReasonPartiallyAttached
	if s.interfaces.Attached == 0 {
		reason = v1alpha1.ReasonNothingAttached
	}
	return condition(metav1.ConditionFalse, reason, "%s failures: %s", of(int(s.nodes.Failed)),
		format.FirstFewOf(s.failureNames(true), len(s.failures)+s.unlisted))
}

// unmatched returns on how many nodes spec.interfaces selects no interface.
func (s *nodeSummary) unmatched() (n int) {
	for _, f := range s.failures {
		if f.Reason == v1alpha1.ReasonNoInterfacesMatched {
			n++
		}
	}
	return n
}

// failureNames returns node or node/interface of each failure, with the reason in parentheses if withReason is set.
func (s *nodeSummary) failureNames(withReason bool) []string {
	var names []string
	for _, f := range s.failures {
		name := f.Node
		if f.Interface != "" {
			name = onNodeText(f.Node, f.Interface)
		}
		if withReason {
			name += " (" + f.Reason + ")"
		}
		names = append(names, name)
	}
	return names
}

// notForAgents names the nodes on which no agent can run (canRunAgent).
const notForAgents = "not Linux, AWS Fargate or Virtual Kubelet"

// remarks returns what a user may not expect although all interfaces are counted.
func (s *nodeSummary) remarks() (remarks string) {
	if len(s.fellBackToGeneric) > 0 {
		remarks = fmt.Sprintf("; %d in generic mode because native mode was refused: %s", len(s.fellBackToGeneric), format.FirstFew(s.fellBackToGeneric))
	}
	if len(s.countDecrypted) > 0 {
		remarks += fmt.Sprintf("; packets of IPsec tunnels count twice on %s in generic mode: %s",
			format.Count(len(s.countDecrypted), "interface", "interfaces"), format.FirstFew(s.countDecrypted))
	}
	if len(s.countAggregates) > 0 {
		remarks += fmt.Sprintf("; several frames can count as one packet on %s: %s",
			format.Count(len(s.countAggregates), "interface", "interfaces"), format.FirstFew(s.countAggregates))
	}
	if n := int(s.interfaces.Skipped); n > 0 {
		remarks += fmt.Sprintf("; the frames of %s already counted there: %s",
			format.Count(n, "more interface are", "more interfaces are"), format.FirstFewOf(s.skipped, n))
	}
	if len(s.leftOut) > 0 {
		remarks += fmt.Sprintf("; %s left out, because no agent can run there (%s): %s",
			format.Count(len(s.leftOut), "node is", "nodes are"), notForAgents, format.FirstFew(s.leftOut))
	}
	return remarks
}

// setConditions sets Ready. While Ready is not True it also sets Reconciling or Stalled. A condition whose status does not
// change keeps its lastTransitionTime.
func setConditions(conditions *[]metav1.Condition, ready metav1.Condition, c *v1alpha1.XDPCounter, now time.Time) {
	ready.ObservedGeneration = c.Generation
	ready.LastTransitionTime = metav1.NewTime(now)
	if was := meta.FindStatusCondition(*conditions, ready.Type); was != nil && was.LastTransitionTime.Unix() <= 0 {
		was.LastTransitionTime = c.CreationTimestamp // the default in the schema is a fixed time, 0
	}
	meta.SetStatusCondition(conditions, ready)
	for kind, status := range map[string]metav1.ConditionStatus{
		v1alpha1.ConditionReconciling: metav1.ConditionUnknown,
		v1alpha1.ConditionStalled:     metav1.ConditionFalse,
	} {
		if ready.Status != status {
			meta.RemoveStatusCondition(conditions, kind)
			continue
		}
		other := ready
		other.Type, other.Status = kind, metav1.ConditionTrue
		meta.SetStatusCondition(conditions, other)
	}
}
