package controllers

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/internal/format"
)

// ready returns the Ready condition: what kind of trouble it is, how many it concerns, and the first of them.
func (s *survey) ready(c *v1alpha1.XDPCounter) metav1.Condition {
	condition := func(status metav1.ConditionStatus, reason, format string, args ...any) metav1.Condition {
		return metav1.Condition{Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: fmt.Sprintf(format, args...)}
	}
	of := func(n int) string { return fmt.Sprintf("%d of %d nodes", n, s.nodes.Selected) }
	switch {
	case s.invalid != nil:
		return condition(metav1.ConditionFalse, v1alpha1.ReasonInvalidNodeSelector, "%v", s.invalid)
	case len(s.leaving) > 0 && len(s.failures) == 0 && len(s.pending) == 0:
		return condition(metav1.ConditionUnknown, v1alpha1.ReasonPending, "waiting for the agents of %s to stop counting: %s",
			several(len(s.leaving), "node"), format.FirstFew(s.leaving))
	case c.Spec.Suspend:
		return condition(metav1.ConditionTrue, v1alpha1.ReasonSuspended, "counting is suspended; the totals are kept")
	case s.nodes.Selected == 0:
		return condition(metav1.ConditionFalse, v1alpha1.ReasonNoNodesSelected, "spec.nodeSelector selects no node")
	case len(s.failures) == 0 && len(s.pending) > 0:
		return condition(metav1.ConditionUnknown, v1alpha1.ReasonPending, "waiting for the agents of %s: %s", of(len(s.pending)), format.FirstFew(s.pending))
	case len(s.failures) == 0:
		return condition(metav1.ConditionTrue, v1alpha1.ReasonAllInterfacesAttached, "%s on %s %s being counted%s",
			several(int(s.interfaces.Attached), "interface"), several(int(s.nodes.Ready), "node"), isOrAre(int(s.interfaces.Attached)), s.also())
	case len(s.silent) == len(s.failures):
		return condition(metav1.ConditionFalse, v1alpha1.ReasonAgentNotReporting, "the agents of %s are silent: %s", of(len(s.silent)), format.FirstFew(s.silent))
	case s.unmatched() == len(s.failures) && s.interfaces.Attached == 0:
		return condition(metav1.ConditionFalse, v1alpha1.ReasonNoInterfacesMatched, "spec.interfaces selects no interface of %s: %s",
			several(len(s.failures), "node"), format.FirstFew(s.culprits(false)))
	}
	reason := v1alpha1.ReasonPartiallyAttached
	if s.interfaces.Attached == 0 {
		reason = v1alpha1.ReasonNothingAttached
	}
	return condition(metav1.ConditionFalse, reason, "%s have failures: %s", of(int(s.nodes.Failed)), format.FirstFew(s.culprits(true)))
}

// unmatched returns on how many nodes no interface is selected.
func (s *survey) unmatched() (n int) {
	for _, f := range s.failures {
		if f.Reason == v1alpha1.ReasonNoInterfacesMatched {
			n++
		}
	}
	return n
}

func (s *survey) culprits(reasons bool) []string {
	var list []string
	for _, f := range s.failures {
		culprit := f.Node
		if f.Interface != "" {
			culprit += "/" + f.Interface
		}
		if reasons {
			culprit += " (" + f.Reason + ")"
		}
		list = append(list, culprit)
	}
	return list
}

// setConditions sets Ready, and Reconciling or Stalled beside it while it is not True. A condition that stays keeps the
// time since when it is so.
func setConditions(conditions *[]metav1.Condition, ready metav1.Condition, c *v1alpha1.XDPCounter, now time.Time) {
	ready.ObservedGeneration = c.Generation
	ready.LastTransitionTime = metav1.NewTime(now)
	if was := meta.FindStatusCondition(*conditions, ready.Type); was != nil && was.LastTransitionTime.Unix() <= 0 {
		was.LastTransitionTime = c.CreationTimestamp // the default of the API cannot know it
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
		beside := ready
		beside.Type, beside.Status = kind, metav1.ConditionTrue
		meta.SetStatusCondition(conditions, beside)
	}
}

// also says of the interfaces that are well what is not as it might be expected.
func (s *survey) also() (also string) {
	if len(s.fallen) > 0 {
		also = fmt.Sprintf("; %d in generic mode, where native was refused: %s", len(s.fallen), format.FirstFew(s.fallen))
	}
	if len(s.skipped) > 0 {
		also += fmt.Sprintf("; the frames of %d more are counted there too: %s", len(s.skipped), format.FirstFew(s.skipped))
	}
	return also
}
