package controllers

import (
	"testing"
	"time"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

func TestWhenAnAgentCountsAsSilent(t *testing.T) {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	const (
		silent      = v1alpha1.ReasonAgentNotReporting
		outOfReach  = v1alpha1.ReasonNodeUnreachable
		asksForPod  = "; remedy: check that the agent's pod runs on the node"
		asksForNode = "; remedy: check the node; what its interfaces count is reported when it is back"
	)
	quiet, busy := state("n1").For("a", 5), func() stateBuilder { return state("n1").For("a", 5).Moving() }
	for name, tc := range map[string]struct {
		state       stateBuilder
		unreachable time.Time // zero: it is not
		in          time.Duration
		reason      string
		message     string
	}{
		"without traffic two heartbeats after its report": {
			quiet, time.Time{}, 199 * time.Second, silent, "its agent has not reported since 2026-01-01T11:59:59Z" + asksForPod,
		},
		"with traffic two intervals and a minute after it": {
			busy(), time.Time{}, 79 * time.Second, silent, "its agent has not reported since 2026-01-01T11:59:59Z" + asksForPod,
		},
		"with an interval of an hour too": {
			busy().Every(time.Hour), time.Time{}, 2*time.Hour + 59*time.Second, silent, "its agent has not reported since 2026-01-01T11:59:59Z" + asksForPod,
		},
		"three minutes after it was made, if it has never reported": {
			state("n1").Told("a").NeverReported().BornAt(now), time.Time{}, 3 * time.Minute, silent, "its agent has never reported" + asksForPod,
		},
		"three minutes after it was told something else": {
			state("n1").For("a", 5).SilentSince(ago(30 * time.Minute)).Behind().ToldAt(ago(time.Second)), time.Time{}, 179 * time.Second, silent,
			"its agent has not applied the spec of 2026-01-01T11:59:59Z" + asksForPod,
		},
		"a minute after its node got out of reach": {
			state("n1").For("a", 5).Every(time.Hour).SilentSince(ago(50 * time.Minute)), ago(40 * time.Second), 20 * time.Second, outOfReach,
			"the node has been unreachable since 2026-01-01T11:59:20Z" + asksForNode,
		},
		"a minute after it too if it has reported within that second, of which Kubernetes tells no fraction": {
			state("n1").For("a", 5).Every(time.Hour).SilentSince(ago(40*time.Second - 900*time.Millisecond)), ago(40 * time.Second), 20 * time.Second, outOfReach,
			"the node has been unreachable since 2026-01-01T11:59:20Z" + asksForNode,
		},
		"not for its node's sake, if it has reported since": {
			busy(), ago(10 * time.Minute), 79 * time.Second, silent, "its agent has not reported since 2026-01-01T11:59:59Z" + asksForPod,
		},
	} {
		state := tc.state.Obj()
		at, failure := lateFrom(&state, tc.unreachable), lateFailure(&state, tc.unreachable)
		if in := at.Sub(now); in != tc.in || failure.Reason != tc.reason || failure.Message != tc.message || failure.Node != "n1" {
			t.Errorf("%s: in %s, %v; want in %s, %s: %s", name, in, failure, tc.in, tc.reason, tc.message)
		}
	}
}

func TestAnAgentThatDoesWhatItOwesIsNeverSilent(t *testing.T) {
	for _, interval := range []time.Duration{time.Second, 10 * time.Second, time.Minute, time.Hour} {
		last := now
		quiet, busy := state("n1").For("a", 5).Every(interval).SilentSince(last).Obj(), state("n1").For("a", 5).Moving().Every(interval).SilentSince(last).Obj()
		const late = 30 * time.Second // passes, jitter, tries
		if at := lateFrom(&quiet, time.Time{}); !at.After(last.Add(v1alpha1.HeartbeatInterval(interval) + interval/10 + late)) {
			t.Errorf("every %s: a quiet agent is silent before its heartbeat can be there", interval)
		}
		if at := lateFrom(&busy, time.Time{}); !at.After(last.Add(interval + interval/10 + late)) {
			t.Errorf("every %s: a busy agent is silent before its next report can be there", interval)
		}
	}
}
