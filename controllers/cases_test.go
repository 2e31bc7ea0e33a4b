// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

func TestInterfacesOfOtherCountersDoNotHideThoseBehindThem(t *testing.T) {
	c := counter("a").Obj()
	states := []v1alpha1.XDPNodeState{state("n1").For("a", 5).
		Attached("eth0", v1alpha1.AttachNative, "b").
		Attached("eth1", v1alpha1.AttachNative, "a").
		Failed("eth2", v1alpha1.ReasonXDPHookInUse, "b").
		Failed("eth3", v1alpha1.ReasonXDPHookInUse, "a", "b").Obj()}
	got := statusInTime(&c, []corev1.Node{node("n1", "")}, states, now).Interfaces
	if got.Attached != 1 || got.Failed != 1 {
		t.Errorf("%d interfaces are attached and %d failed, want 1 and 1", got.Attached, got.Failed)
	}
}

func TestNextSilenceIsThatOfTheAgentThatIsLateFirst(t *testing.T) {
	quiet, busy := state("n1").For("a", 5), state("n2").For("a", 5).Moving() // late in 199 s and in 79 s
	const inQuiet, inBusy = 199 * time.Second, 79 * time.Second
	longAgo := state("n3").For("a", 5).SilentSince(born)
	thisMoment := state("n5").For("a", 5).SilentSince(now.Add(-200 * time.Second))
	oneLeft := state("n6").For("a", 5).SilentSince(now.Add(-200*time.Second + time.Nanosecond))
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
		"one that is late at this moment":   {[]stateBuilder{quiet, thisMoment}, inQuiet},
		"one that is late in a nanosecond":  {[]stateBuilder{quiet, oneLeft}, time.Nanosecond},
		"all are late already":              {[]stateBuilder{longAgo, thisMoment}, 0},
		"one whose node cannot be reached":  {[]stateBuilder{quiet, hourly}, 20 * time.Second},
		"three in an order of no increases": {[]stateBuilder{quiet, busy, hourly}, 20 * time.Second},
	} {
		var states []v1alpha1.XDPNodeState
		for _, b := range tc.states {
			states = append(states, b.Obj())
		}
		if got := untilNextLate(seenInTime(nodes, states), now); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
