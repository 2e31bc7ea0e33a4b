// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"maps"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

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

func TestAttachStates(t *testing.T) {
	entry := func(name string, state v1alpha1.InterfaceState, reason string, id int64, uids ...types.UID) v1alpha1.NodeInterface {
		return v1alpha1.NodeInterface{Name: name, State: state, Reason: reason, Map: id, Counters: uids}
	}
	var states [1]v1alpha1.XDPNodeState
	states[0].Name = "n1"
	states[0].Status.Interfaces = []v1alpha1.NodeInterface{
		entry("other", v1alpha1.InterfaceAttached, "", 1, "b"),
		entry("skipped", v1alpha1.InterfaceSkipped, v1alpha1.ReasonCountedElsewhere, 0, "a"),
		entry("counted", v1alpha1.InterfaceAttached, "", 2, "a"),
		entry("failed", v1alpha1.InterfaceFailed, v1alpha1.ReasonXDPHookInUse, 0, "a"),
		entry("pending", v1alpha1.InterfaceFailed, v1alpha1.ReasonPending, 0, "a"),
		entry("replaced", v1alpha1.InterfaceAttached, "", 3, "a"),
		entry("replaced", v1alpha1.InterfaceDetaching, "", 4, "a"),
		entry("detaching", v1alpha1.InterfaceDetaching, "", 5, "a"),
		entry("", v1alpha1.InterfaceDetaching, "", 6, "a"), // its interface is gone
	}
	got := attachStates("a", states[:])
	want := map[interfaceRef]attachState{
		{"n1", "counted"}: {mapID: 2}, {"n1", "failed"}: {failed: v1alpha1.ReasonXDPHookInUse}, {"n1", "pending"}: {},
		{"n1", "replaced"}: {mapID: 3}, {"n1", "detaching"}: {},
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestNotifiedBefore(t *testing.T) {
	counted, failed := interfaceRef{"n1", "counted"}, interfaceRef{"n1", "failed"}
	now := map[interfaceRef]attachState{counted: {mapID: 2}, failed: {failed: v1alpha1.ReasonXDPHookInUse}, {"n1", "pending"}: {}}
	status := func(attached int32, failures int) v1alpha1.XDPCounterStatus {
		s := v1alpha1.XDPCounterStatus{Interfaces: &v1alpha1.InterfaceNumbers{Attached: attached}}
		for range failures {
			s.Failures = append(s.Failures, v1alpha1.Failure{Node: "n2"}) // of a whole node
		}
		return s
	}
	for name, tc := range map[string]struct {
		was  v1alpha1.XDPCounterStatus
		want []interfaceRef
	}{
		"no status":                                  {v1alpha1.XDPCounterStatus{}, nil},
		"nothing was counted":                        {status(0, 0), nil},
		"something was counted":                      {status(1, 0), []interfaceRef{counted}},
		"not all failures were listed":               {status(0, maxFailures), []interfaceRef{failed}},
		"all failures were listed, none of this one": {status(0, maxFailures-1), nil},
	} {
		got := notifiedBefore(tc.was, now)
		want := map[interfaceRef]attachState{}
		for _, ref := range tc.want {
			want[ref] = now[ref]
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

func TestDeletedStatesWithoutAShareAreNotKept(t *testing.T) {
	with := func(change func(*v1alpha1.XDPNodeState)) bool {
		s := state("n1").For("a", 5).Obj()
		change(&s)
		var d deletedStates
		return d.add(&s)
	}
	if !with(func(*v1alpha1.XDPNodeState) {}) {
		t.Error("a state with a share is not kept")
	}
	if with(func(s *v1alpha1.XDPNodeState) { s.Status.Accounts = nil }) {
		t.Error("a state without accounts is kept")
	}
	if with(func(s *v1alpha1.XDPNodeState) {
		metav1.SetMetaDataAnnotation(&s.ObjectMeta, v1alpha1.AnnotationRetiring, "true")
	}) {
		t.Error("a state whose share is retired is kept")
	}
}

func TestNumberOfNodesChangesSeldom(t *testing.T) {
	var c nodeCount
	c.add(1000)
	rounded := c.get()
	if c.add(rounded-1000) || c.get() != rounded {
		t.Errorf("%d nodes are %d", rounded, c.get())
	}
	if !c.add(1) || c.get() <= rounded {
		t.Errorf("%d nodes are %d", rounded+1, c.get())
	}
}
