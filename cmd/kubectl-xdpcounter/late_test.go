// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

func TestLateness(t *testing.T) {
	const (
		notReporting = v1alpha1.ReasonAgentNotReporting
		unreachable  = v1alpha1.ReasonNodeUnreachable
	)
	c := aCounter("workers", traffic.Totals{})
	// reported is a node whose report was stored some time before noon, and whose clock is wrong.
	reported := func(ago, skew time.Duration, change func(*v1alpha1.XDPNodeState)) v1alpha1.XDPNodeState {
		s := aNode("n1", -ago, traffic.Totals{}, c)
		at := noon.Add(skew - ago)
		s.Status.ReportTime = new(metav1.NewMicroTime(at))
		s.Status.NextReportTime = new(metav1.NewTime(v1alpha1.NextReportTime(at, interval, s.Status.Accounts)))
		if change != nil {
			change(&s)
		}
		return s
	}
	unknown := func(s *v1alpha1.XDPNodeState) { s.ManagedFields = nil }
	behind := func(s *v1alpha1.XDPNodeState) { s.Generation++ }
	never := func(s *v1alpha1.XDPNodeState) { s.Status, s.ManagedFields = v1alpha1.XDPNodeStateStatus{}, nil }
	const since1156 = "its agent has not reported since 2026-11-20T11:56:00Z, 4m0s ago"

	for name, test := range map[string]struct {
		state           v1alpha1.XDPNodeState
		listed          string // the reason in status.failures
		reason, message string
	}{
		"a node 90 s behind that reports":                         {reported(time.Second, -90*time.Second, nil), "", "", ""},
		"a node 2 h ahead that has stopped":                       {reported(4*time.Minute, 2*time.Hour, nil), "", notReporting, since1156},
		"a node 3 h behind that has stopped":                      {reported(4*time.Minute, -3*time.Hour, nil), "", notReporting, since1156},
		"a node that has reported since the status was written":   {reported(time.Second, 2*time.Hour, nil), notReporting, "", ""},
		"a node that is late, and listed":                         {reported(4*time.Minute, 0, nil), notReporting, notReporting, since1156},
		"a node that is late in a second":                         {reported(199*time.Second, 0, nil), "", "", ""},
		"an unreachable node":                                     {reported(time.Second, 0, nil), unreachable, unreachable, "why"},
		"an agent that does not follow its spec":                  {reported(time.Second, 0, behind), notReporting, notReporting, "why"},
		"an agent that does not follow its spec yet":              {reported(time.Second, 0, behind), "", "", ""},
		"a report of which it is not known when it was stored":    {reported(time.Hour, -time.Hour, unknown), "", "", ""},
		"such a report, and the controller says that it is late":  {reported(time.Second, time.Hour, unknown), notReporting, notReporting, "why"},
		"an agent that has never reported":                        {reported(0, 0, never), "", notReporting, "its agent has never reported"},
		"an agent that has never reported, for less than 3 min":   {reported(0, 0, func(s *v1alpha1.XDPNodeState) { never(s); s.CreationTimestamp.Time = noon.Add(-179 * time.Second) }), "", "", ""},
		"an agent that promises its next report in a year, later": {reported(4*time.Minute, 0, func(s *v1alpha1.XDPNodeState) { s.Status.NextReportTime = &metav1.Time{Time: noon.AddDate(1, 0, 0)} }), "", notReporting, since1156},
	} {
		c := c.DeepCopy()
		if test.listed != "" {
			c.Status.Failures = []v1alpha1.Failure{
				{Node: "n0", Reason: unreachable, Message: "of another node"},
				{Node: "n1", Interface: "eth0", Reason: v1alpha1.ReasonXDPHookInUse, Message: "of an interface"},
				{Node: "n1", Reason: test.listed, Message: v1alpha1.FailureMessage(test.listed, "why", "")},
			}
		}
		if reason, message := lateness(c, &test.state, noon); reason != test.reason || message != test.message {
			t.Errorf("%s: %q, %q; want %q, %q", name, reason, message, test.reason, test.message)
		}
	}
}
