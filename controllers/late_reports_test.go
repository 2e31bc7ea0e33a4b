// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

func TestLateFrom(t *testing.T) {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	const (
		notReporting    = v1alpha1.ReasonAgentNotReporting
		nodeUnreachable = v1alpha1.ReasonNodeUnreachable
		asksForPod      = "; remedy: check that the agent's pod runs on the node"
		asksForNode     = "; remedy: check the node; what its interfaces count is reported when it is back"
	)
	quiet, busy := state("n1").For("a", 5), func() stateBuilder { return state("n1").For("a", 5).Moving() }
	for name, tc := range map[string]struct {
		state       stateBuilder
		unreachable time.Time // zero: the node is reachable
		in          time.Duration
		reason      string
		message     string
	}{
		"without traffic: two heartbeats after the last report": {
			quiet, time.Time{}, 199 * time.Second, notReporting, "its agent has not reported since 2026-01-01T11:59:59Z" + asksForPod,
		},
		"with traffic: two intervals and a minute after the last report": {
			busy(), time.Time{}, 79 * time.Second, notReporting, "its agent has not reported since 2026-01-01T11:59:59Z" + asksForPod,
		},
		"with traffic and an interval of an hour: two intervals and a minute after the last report": {
			busy().Every(time.Hour), time.Time{}, 2*time.Hour + 59*time.Second, notReporting, "its agent has not reported since 2026-01-01T11:59:59Z" + asksForPod,
		},
		"an agent that has never reported: three minutes after its node state was created": {
			state("n1").Listing("a").NeverReported().BornAt(now), time.Time{}, 3 * time.Minute, notReporting, "its agent has never reported" + asksForPod,
		},
		"an agent that has not applied the spec: three minutes after the spec was updated": {
			state("n1").For("a", 5).SilentSince(ago(time.Minute)).Behind().SpecUpdatedAt(ago(time.Second)), time.Time{}, 179 * time.Second, notReporting,
			"its agent has not applied the spec of 2026-01-01T11:59:59Z" + asksForPod,
		},
		"an agent that was late when the spec was updated: as without the update": {
			state("n1").For("a", 5).SilentSince(ago(30 * time.Minute)).Behind().SpecUpdatedAt(ago(time.Second)), time.Time{}, 200*time.Second - 30*time.Minute, notReporting,
			"its agent has not applied the spec of 2026-01-01T11:59:59Z" + asksForPod,
		},
		"a report that was stored by an API server with another clock: its time is shown": {
			quiet.StoredAt(ago(time.Hour)), time.Time{}, 199 * time.Second, notReporting, "its agent has not reported since 2026-01-01T11:00:00Z" + asksForPod,
		},
		"an unreachable node: a minute after its kubelet stopped reporting": {
			state("n1").For("a", 5).Every(time.Hour).SilentSince(ago(50 * time.Minute)), ago(40 * time.Second), 20 * time.Second, nodeUnreachable,
			"the node has been unreachable since 2026-01-01T11:59:20Z" + asksForNode,
		},
		"an unreachable node whose agent has reported since: as without it": {
			busy(), ago(10 * time.Minute), 79 * time.Second, notReporting, "its agent has not reported since 2026-01-01T11:59:59Z" + asksForPod,
		},
	} {
		state, n1 := tc.state.Obj(), node("n1", "")
		if !tc.unreachable.IsZero() {
			n1 = unreachable(n1, tc.unreachable)
		}
		seen := seenInTime([]corev1.Node{n1}, []v1alpha1.XDPNodeState{state})[state.UID]
		failure := lateFailure(&state, seen)
		if in := seen.lateFrom().Sub(now); in != tc.in || failure.Reason != tc.reason || failure.Message != tc.message || failure.Node != "n1" {
			t.Errorf("%s: in %s, %v; want in %s, %s: %s", name, in, failure, tc.in, tc.reason, tc.message)
		}
	}
}

func TestLateFromIsAfterEveryReportInTime(t *testing.T) {
	for _, interval := range []time.Duration{time.Second, 10 * time.Second, time.Minute, time.Hour} {
		last := now
		lateFrom := func(b stateBuilder) time.Time {
			state := b.Every(interval).SilentSince(last).Obj()
			return sighting{}.withReport(&state, last).lateFrom()
		}
		const late = 30 * time.Second // duration of passes, jitter and retries
		if at := lateFrom(state("n1").For("a", 5)); !at.After(last.Add(v1alpha1.HeartbeatInterval(interval) + interval/10 + late)) {
			t.Errorf("with an interval of %s an agent without traffic is late before its heartbeat can arrive", interval)
		}
		if at := lateFrom(state("n1").For("a", 5).Moving()); !at.After(last.Add(interval + interval/10 + late)) {
			t.Errorf("with an interval of %s an agent with traffic is late before its next report can arrive", interval)
		}
	}
}
