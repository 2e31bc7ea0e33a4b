// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// lateness returns why the agent of a node is late, "" if it is not. now is of the API server's clock, which has also stored the
// report: the agent's own clock may be wrong. What only the controller knows comes from the status of the counter: that the node
// is unreachable, that the agent does not follow its spec in time, and whether the agent is late at all if it is not known when
// its report was stored.
func lateness(c *v1alpha1.XDPCounter, state *v1alpha1.XDPNodeState, now time.Time) (reason, message string) {
	var listed v1alpha1.Failure
	if i := slices.IndexFunc(c.Status.Failures, func(f v1alpha1.Failure) bool {
		return f.Node == state.Name && (f.Reason == v1alpha1.ReasonNodeUnreachable || f.Reason == v1alpha1.ReasonAgentNotReporting)
	}); i >= 0 {
		listed = c.Status.Failures[i]
	}
	since, timeout := state.ReportStoredAt(), state.ReportTimeout()
	message = fmt.Sprintf("its agent has not reported since %s, %s ago", since.UTC().Format(time.RFC3339), now.Sub(since).Round(time.Second))
	if state.Status.ReportTime == nil {
		since, timeout, message = state.CreationTimestamp.Time, v1alpha1.SpecAckTimeout, "its agent has never reported"
	}
	switch {
	case listed.Reason == v1alpha1.ReasonNodeUnreachable:
	case !since.IsZero() && now.Sub(since) >= timeout:
		return v1alpha1.ReasonAgentNotReporting, message
	case !since.IsZero() && state.Status.ObservedGeneration == state.Generation: // the status is older than the report
		return "", ""
	}
	return listed.Reason, v1alpha1.CauseOf(listed.Message)
}
