// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/golden"
)

// phasesDir contains an XDPCounter in every phase. Tests of kstatus and Argo CD in test/gitops and of kubectl in api/v1alpha1
// read them.
const phasesDir = "../test/gitops/phases"

// asCreated returns the status of a new object, which is the default in the CRD.
func asCreated() v1alpha1.XDPCounterStatus {
	return v1alpha1.XDPCounterStatus{Conditions: []metav1.Condition{{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonPending,
		Message: "Waiting for the controller", LastTransitionTime: metav1.Unix(0, 0),
	}}}
}

func TestPhases(t *testing.T) {
	counted := v1alpha1.Counts{
		{Class: "IPv4/TCP", Packets: 81_000, Bytes: 90_000_000, PPS: 1_200, BPS: 11_000_000},
		{Class: "IPv4/UDP", Packets: 17_000, Bytes: 8_000_000, PPS: 300, BPS: 990_000},
		{Class: "IPv6/TCP", Packets: 400, Bytes: 30_000},
		{Class: "ARP", Packets: 100, Bytes: 4_200, PPS: 20, BPS: 10_000},
	}
	counting := func(node string) stateBuilder {
		b := state(node).Listing("edge").Attached("eth0", v1alpha1.AttachNative, "edge")
		b.s.Status.Accounts = []v1alpha1.CounterAccount{{
			UID: "edge", Generation: 2, Counts: counted,
		}}
		return b
	}
	stopped := func(node string) stateBuilder { // and its agent has reported it
		b := counting(node)
		b.s.Status.Interfaces = nil
		account := &b.s.Status.Accounts[0]
		account.Counts = v1alpha1.WithoutRates(counted)
		return b
	}
	nodes := []corev1.Node{node("n1", "edge"), node("n2", "edge"), node("n3", "core")}
	edge := counter("edge").Pool("edge")
	for name, tc := range map[string]struct {
		counter counterBuilder
		nodes   []corev1.Node
		states  []stateBuilder
		before  []stateBuilder // the node states of an earlier status, if any
	}{
		"reconciling": {edge, nodes, []stateBuilder{counting("n1"), state("n2").Listing("edge").Behind()}, nil},
		"ready":       {edge, nodes, []stateBuilder{counting("n1"), counting("n2")}, nil},
		"partially-attached": {
			edge, nodes, []stateBuilder{
				counting("n1"),
				counting("n2").Attached("eth1", v1alpha1.AttachGeneric, "edge").Failed("eth2", v1alpha1.ReasonXDPHookInUse, "edge"),
			}, nil,
		},
		"nothing-attached": {
			edge, nodes, []stateBuilder{
				state("n1").For("edge", 0).Failed("eth0", v1alpha1.ReasonXDPHookInUse, "edge"),
				state("n2").For("edge", 0).Failed("eth0", v1alpha1.ReasonMTUTooLarge, "edge"),
			}, nil,
		},
		"no-interfaces": {edge, nodes, []stateBuilder{state("n1").For("edge", 0), state("n2").For("edge", 0)}, nil},
		"no-nodes":      {counter("edge").Pool("none"), nodes, nil, nil},
		"suspending":    {counter("edge").Suspended(), nodes, []stateBuilder{stopped("n1"), counting("n2").Behind()}, nil},
		"suspended":     {counter("edge").Suspended(), nodes, []stateBuilder{stopped("n1"), stopped("n2")}, nil},
		"bad-selector":  {counter("edge").Selector("a b", metav1.LabelSelectorOpExists), nodes, nil, nil},
		"agent-silent": {
			edge, nodes, []stateBuilder{counting("n1"), counting("n2").SilentSince(now.Add(-5 * time.Minute))},
			[]stateBuilder{counting("n1"), counting("n2")},
		},
		"node-unreachable": {
			edge, []corev1.Node{nodes[0], unreachable(nodes[1], now.Add(-61*time.Second))},
			[]stateBuilder{counting("n1"), counting("n2").SilentSince(now.Add(-62 * time.Second))},
			[]stateBuilder{counting("n1"), counting("n2")},
		},
		"recovered": {
			edge, nodes, []stateBuilder{counting("n1"), counting("n2")},
			[]stateBuilder{counting("n1"), counting("n2").SilentSince(now.Add(-5 * time.Minute))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := tc.counter.Obj()
			c.Status = asCreated()
			if tc.before != nil {
				c.Status = statusInTime(&c, nodes, objects(tc.before), now.Add(-4*time.Second))
			}
			c.Status = statusInTime(&c, tc.nodes, objects(tc.states), now)
			if second := statusInTime(&c, tc.nodes, objects(tc.states), now.Add(time.Second)); needsWrite(c.Status, second) {
				t.Errorf("a second later the status differs without a reason (-first +second):\n%s", cmp.Diff(c.Status, second))
			}
			expectGolden(t, name, c)
		})
	}
	t.Run("new", func(t *testing.T) {
		c := edge.Obj()
		c.Generation, c.Status = 1, asCreated()
		expectGolden(t, "new", c)
	})
	ready := edge.Obj()
	ready.Status = statusInTime(&ready, nodes, []v1alpha1.XDPNodeState{counting("n1").Obj(), counting("n2").Obj()}, now)
	t.Run("edited", func(t *testing.T) { // and the controller has not seen it yet
		c := ready
		c.Generation++
		expectGolden(t, "edited", c)
	})
	t.Run("deleting", func(t *testing.T) { // with kubectl delete --cascade=foreground
		c := ready
		c.DeletionTimestamp, c.Finalizers = &metav1.Time{Time: now}, []string{metav1.FinalizerDeleteDependents}
		expectGolden(t, "deleting", c)
	})
}

func objects(bs []stateBuilder) (list []v1alpha1.XDPNodeState) {
	for _, b := range bs {
		list = append(list, b.Obj())
	}
	return list
}

// expectGolden compares the counter with the file of the phase.
func expectGolden(t *testing.T, phase string, c v1alpha1.XDPCounter) {
	t.Helper()
	c.APIVersion, c.Kind = v1alpha1.GroupVersion.String(), "XDPCounter"
	got, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, filepath.Join(phasesDir, phase+".yaml"), string(got))
}

func TestSetConditions(t *testing.T) {
	nodes := []corev1.Node{node("n1", "")}
	c := counter("a").Obj()
	c.Status = asCreated()
	at := now
	expect := func(state stateBuilder, want ...string) {
		t.Helper()
		at = at.Add(time.Second)
		c.Status = statusInTime(&c, nodes, []v1alpha1.XDPNodeState{state.Obj()}, at)
		var got []string
		for _, condition := range c.Status.Conditions {
			if condition.ObservedGeneration != c.Generation {
				t.Errorf("%s has observed generation %d of %d", condition.Type, condition.ObservedGeneration, c.Generation)
			}
			got = append(got, condition.Type+"="+string(condition.Status)+" "+condition.Reason+" since "+at.Sub(condition.LastTransitionTime.Time).String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("conditions (-want +got):\n%s", diff)
		}
	}
	waiting, counting := state("n1").Listing("a").Behind(), state("n1").For("a", 1).Attached("eth0", v1alpha1.AttachNative, "a")
	failing := state("n1").For("a", 1).Failed("eth0", v1alpha1.ReasonXDPHookInUse, "a")
	other := state("n1").For("a", 1).Failed("eth0", v1alpha1.ReasonMTUTooLarge, "a")

	expect(waiting, "Ready=Unknown Pending since 1h0m1s", "Reconciling=True Pending since 0s") // since its creation
	expect(waiting, "Ready=Unknown Pending since 1h0m2s", "Reconciling=True Pending since 1s")
	expect(counting, "Ready=True AllInterfacesAttached since 0s")
	expect(counting, "Ready=True AllInterfacesAttached since 1s")
	expect(failing, "Ready=False NothingAttached since 0s", "Stalled=True NothingAttached since 0s")
	expect(other, "Ready=False NothingAttached since 1s", "Stalled=True NothingAttached since 1s") // the same condition with another reason
	expect(counting, "Ready=True AllInterfacesAttached since 0s")
}

// Caches list objects in random order. If the status depended on it, every reconcile would write.
func TestSummarizeIgnoresTheOrderOfNodes(t *testing.T) {
	c := counter("a").Obj()
	c.Status = asCreated()
	var nodes []corev1.Node
	var states []v1alpha1.XDPNodeState
	for i, name := range []string{"n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8"} {
		nodes = append(nodes, node(name, ""))
		switch i % 4 {
		case 0:
			states = append(states, state(name).Listing("a").Behind().Obj())
		case 1:
			states = append(states, state(name).For("a", 1).SilentSince(born).Obj())
		case 2:
			states = append(states, state(name).For("a", 1).Failed("eth0", v1alpha1.ReasonXDPHookInUse, "a").Obj())
		}
	}
	c.Status = statusInTime(&c, nodes, states, now)
	for range 2 {
		for range nodes {
			nodes = append(nodes[1:], nodes[0])
			if next := statusInTime(&c, nodes, states, now); needsWrite(c.Status, next) {
				t.Fatalf("the status changes with the order of the nodes (-first +second):\n%s", cmp.Diff(c.Status, next))
			}
		}
		states = states[:1] // then all nodes are pending
		c.Status = statusInTime(&c, nodes, states, now)
	}
}
