// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	testclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/memapi"
)

func TestInterfacesOfOtherCountersDoNotHideThoseBehindThem(t *testing.T) {
	c := counter("a").Obj()
	states := []v1alpha1.XDPNodeState{state("n1").For("a", 5).
		Attached("eth0", v1alpha1.AttachNative, "b").
		Attached("eth1", v1alpha1.AttachNative, "a").
		Failed("eth2", v1alpha1.ReasonXDPHookInUse, "b").
		Failed("eth3", v1alpha1.ReasonXDPHookInUse, "a", "b").Obj()}
	got := summarize(&c, []corev1.Node{node("n1", "")}, states, now).Interfaces
	if got.Attached != 1 || got.Failed != 1 {
		t.Errorf("%d interfaces are attached and %d failed, want 1 and 1", got.Attached, got.Failed)
	}
}

func TestNextSilenceIsThatOfTheAgentThatIsLateFirst(t *testing.T) {
	quiet, busy := state("n1").For("a", 5), state("n2").For("a", 5).Moving() // late in 199 s and in 79 s
	const inQuiet, inBusy = 200 * time.Second, 80 * time.Second              // the whole second behind
	longAgo := state("n3").For("a", 5).SilentSince(born)
	thisMoment := state("n3").For("a", 5).SilentSince(now.Add(-201 * time.Second))
	oneLeft := state("n3").For("a", 5).SilentSince(now.Add(-201*time.Second + time.Nanosecond))
	hourly := state("n4").For("a", 5).Every(time.Hour).SilentSince(now.Add(-50 * time.Minute))
	nodes := []corev1.Node{node("n1", ""), node("n2", ""), node("n3", ""), unreachable(node("n4", ""), now.Add(-40*time.Second))}
	for name, tc := range map[string]struct {
		states []stateBuilder
		want   time.Duration
	}{
		"no agent":                          {nil, 0},
		"one":                               {[]stateBuilder{quiet}, inQuiet},
		"the first is late first":           {[]stateBuilder{busy, quiet}, inBusy},
		"the last is late first":            {[]stateBuilder{quiet, busy}, inBusy},
		"one that is late already":          {[]stateBuilder{longAgo, quiet}, inQuiet},
		"one that is late already, last":    {[]stateBuilder{quiet, longAgo}, inQuiet},
		"one whose second is over":          {[]stateBuilder{quiet, thisMoment}, inQuiet},
		"one whose second is not over":      {[]stateBuilder{quiet, oneLeft}, time.Nanosecond},
		"all are late already":              {[]stateBuilder{longAgo, thisMoment}, 0},
		"one whose node cannot be reached":  {[]stateBuilder{quiet, hourly}, 21 * time.Second},
		"three in an order of no increases": {[]stateBuilder{quiet, busy, hourly}, 21 * time.Second},
	} {
		var states []v1alpha1.XDPNodeState
		for _, b := range tc.states {
			states = append(states, b.Obj())
		}
		if got := untilNextLate(nodes, states, now); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// starting is a controller that has just started, and one counter with the agents of some nodes.
type starting struct {
	t      *testing.T
	client *memapi.Client
	clock  *testclock.FakeClock
	r      *XDPCounterReconciler
}

func newStarting(t *testing.T, n corev1.Node, b stateBuilder) *starting {
	t.Helper()
	clock := testclock.NewFakeClock(born)
	s := &starting{t: t, client: &memapi.Client{Server: memapi.New(clock.Now)}, clock: clock}
	c := counter("a").Obj()
	s.must(s.client.Create(t.Context(), &c))
	s.must(s.client.Create(t.Context(), &n))
	// The server gives UIDs and generations.
	state := b.Obj()
	state.Spec.Counters[0].UID, state.Spec.Counters[0].Generation = c.UID, c.Generation
	status := state.Status
	status.Accounts[0].UID, status.Accounts[0].Generation = c.UID, c.Generation
	for i := range status.Interfaces {
		status.Interfaces[i].Counters = []types.UID{c.UID}
	}
	s.must(s.client.Create(t.Context(), &state))
	status.ObservedGeneration = state.Generation
	state.Status = status
	s.must(s.client.Status().Update(t.Context(), &state))
	clock.SetTime(now)
	s.restart()
	return s
}

func (s *starting) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *starting) restart() {
	s.r = &XDPCounterReconciler{Client: s.client, Live: s.client, Clock: s.clock, Events: &events.FakeRecorder{}}
}

// reconcile returns when the counter is looked at again, and the reason of its Ready condition, "" if none was written.
func (s *starting) reconcile() (again time.Duration, reason string) {
	s.t.Helper()
	key := types.NamespacedName{Name: "a"}
	result, err := s.r.Reconcile(s.t.Context(), ctrl.Request{NamespacedName: key})
	s.must(err)
	c := &v1alpha1.XDPCounter{}
	s.must(s.client.Get(s.t.Context(), key, c))
	if ready := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
		reason = ready.Reason
	}
	return result.RequeueAfter, reason
}

func (s *starting) expect(again time.Duration, reason string) {
	s.t.Helper()
	if gotAgain, gotReason := s.reconcile(); gotAgain != again || gotReason != reason {
		s.t.Errorf("after %v: looked at again in %v with reason %q, want in %v with %q", s.clock.Since(now), gotAgain, gotReason, again, reason)
	}
}

func TestAControllerThatStartsWaitsBeforeItCallsAgentsSilent(t *testing.T) {
	for name, tc := range map[string]struct {
		node   corev1.Node
		state  stateBuilder
		reason string
	}{
		"an agent has not reported": {node("n1", ""), state("n1").For("a", 5).SilentSince(born), v1alpha1.ReasonAgentNotReporting},
		"a node cannot be reached": {
			unreachable(node("n1", ""), now.Add(-5*time.Minute)),
			state("n1").For("a", 5).Every(time.Hour).SilentSince(now.Add(-50 * time.Minute)), v1alpha1.ReasonAgentNotReporting,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStarting(t, tc.node, tc.state)
			s.expect(30*time.Second, "")
			s.clock.Step(10 * time.Second)
			s.expect(20*time.Second, "")
			s.clock.Step(20*time.Second - 1)
			s.expect(1, "")
			s.clock.Step(1)
			if _, reason := s.reconcile(); reason != tc.reason {
				t.Errorf("after the grace the reason is %q", reason)
			}
			// What one has said, the next goes on saying at once.
			s.restart()
			n2 := node("n2", "")
			s.must(s.client.Create(t.Context(), &n2))
			s.reconcile()
			c := &v1alpha1.XDPCounter{}
			s.must(s.client.Get(t.Context(), client.ObjectKey{Name: "a"}, c))
			if n := c.Status.Nodes; n == nil || n.Selected != 2 || n.Failed != 1 {
				t.Errorf("nodes are %+v, want 2 selected and 1 failed", n)
			}
		})
	}
}

func TestAControllerThatStartsWritesAtOnceWhatIsNotSilence(t *testing.T) {
	s := newStarting(t, node("n1", ""), state("n1").For("a", 5).Failed("eth0", v1alpha1.ReasonXDPHookInUse, "a"))
	if again, reason := s.reconcile(); again != 200*time.Second || reason != v1alpha1.ReasonNothingAttached {
		t.Errorf("looked at again in %v with reason %q", again, reason)
	}
}
