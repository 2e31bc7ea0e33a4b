// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

func TestAssign(t *testing.T) {
	inactive := func(b stateBuilder) *v1alpha1.XDPNodeState { s := b.Obj(); return &s }
	for name, tc := range map[string]struct {
		counters []v1alpha1.XDPCounter
		labels   map[string]string // of the node, beside pool=edge
		state    *v1alpha1.XDPNodeState
		want     []string // name, and whether it is active
		interval time.Duration
	}{
		"no counters": {interval: time.Hour},
		"a counter without a selector selects every node": {counters: []v1alpha1.XDPCounter{counter("a").Obj()}, want: []string{"a true"}},
		"matchLabels that match":                          {counters: []v1alpha1.XDPCounter{counter("a").Pool("edge").Obj()}, want: []string{"a true"}},
		"matchLabels that do not match":                   {counters: []v1alpha1.XDPCounter{counter("a").Pool("core").Obj()}, interval: time.Hour},
		"matchExpressions that do not match":              {counters: []v1alpha1.XDPCounter{counter("a").Selector("pool", metav1.LabelSelectorOpNotIn, "edge").Obj()}, interval: time.Hour},
		"an invalid selector selects no node":             {counters: []v1alpha1.XDPCounter{counter("a").Selector("pool", "Near", "edge").Obj()}, interval: time.Hour},
		"counters are sorted by age and then by name": {
			counters: []v1alpha1.XDPCounter{counter("a").Younger().Obj(), counter("c").Obj(), counter("b").Obj()},
			want:     []string{"b true", "c true", "a true"},
		},
		"the interval is the shortest of the active counters": {
			counters: []v1alpha1.XDPCounter{counter("a").Every(time.Minute).Obj(), counter("b").Every(2 * time.Second).Obj(), counter("c").Every(time.Second).Suspended().Obj()},
			want:     []string{"a true", "b true"}, interval: 2 * time.Second,
		},
		"a suspended counter with an account is listed as inactive": {
			counters: []v1alpha1.XDPCounter{counter("a").Suspended().Obj()}, state: inactive(state("n1").For("a", 5)),
			want: []string{"a false"}, interval: time.Hour,
		},
		"a counter that no longer selects the node is listed as inactive": {
			counters: []v1alpha1.XDPCounter{counter("a").Pool("core").Obj()}, state: inactive(state("n1").For("a", 5)),
			want: []string{"a false"}, interval: time.Hour,
		},
		"a counter without an account is listed while the agent may still open one": {
			counters: []v1alpha1.XDPCounter{counter("a").Pool("core").Obj()}, state: inactive(state("n1").Listing("a").Behind()),
			want: []string{"a false"}, interval: time.Hour,
		},
		"a Linux node": {
			counters: []v1alpha1.XDPCounter{counter("a").Obj()}, labels: map[string]string{"kubernetes.io/os": "linux"}, want: []string{"a true"},
		},
		"a node of AWS EC2": {
			counters: []v1alpha1.XDPCounter{counter("a").Obj()}, labels: map[string]string{"eks.amazonaws.com/compute-type": "ec2"}, want: []string{"a true"},
		},
		"a node of some type": {
			counters: []v1alpha1.XDPCounter{counter("a").Obj()}, labels: map[string]string{"type": "gpu"}, want: []string{"a true"},
		},
		"no counter selects a Windows node": {
			counters: []v1alpha1.XDPCounter{counter("a").Obj()}, labels: map[string]string{"kubernetes.io/os": "windows"}, interval: time.Hour,
		},
		"no counter selects a node of AWS Fargate": {
			counters: []v1alpha1.XDPCounter{counter("a").Obj()}, interval: time.Hour,
			labels: map[string]string{"kubernetes.io/os": "linux", "eks.amazonaws.com/compute-type": "fargate"},
		},
		"no counter selects a node of a Virtual Kubelet": {
			counters: []v1alpha1.XDPCounter{counter("a").Pool("edge").Obj()}, interval: time.Hour,
			labels: map[string]string{"kubernetes.io/os": "linux", "type": "virtual-kubelet"},
		},
		"a node that is labelled so that no agent can run there is no longer selected": {
			counters: []v1alpha1.XDPCounter{counter("a").Obj()}, state: inactive(state("n1").For("a", 5)),
			labels: map[string]string{"type": "virtual-kubelet"}, want: []string{"a false"}, interval: time.Hour,
		},
		"a counter without an account that does not select the node is not listed": {
			counters: []v1alpha1.XDPCounter{counter("a").Pool("core").Obj()}, state: inactive(state("n1").Listing("a")), interval: time.Hour,
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := labelled(node("n1", "edge"), tc.labels)
			spec := assign(tc.counters, &n, tc.state, 1, Budget{WritesPerSecond: 50})
			var got []string
			for _, c := range spec.Counters {
				got = append(got, fmt.Sprint(c.Name, " ", !c.Inactive))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("counters (-want +got):\n%s", diff)
			}
			want := tc.interval
			if want == 0 {
				want = 10 * time.Second
			}
			if spec.ReportInterval.Duration != want {
				t.Errorf("interval %v, want %v", spec.ReportInterval.Duration, want)
			}
		})
	}
}

func TestAssignEmptySpecSelectsPrimaryInterface(t *testing.T) {
	n := node("n1", "")
	bare := v1alpha1.XDPCounter{}
	got := assign([]v1alpha1.XDPCounter{bare, counter("b").Interfaces("ens*").Sharing().Obj()}, &n, nil, 1, Budget{}).Counters
	want := []v1alpha1.NodeCounter{
		{Primary: true},
		{Name: "b", UID: "b", Generation: 2, Names: []string{"ens*"}, Coexistence: v1alpha1.CoexistenceDispatcher},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestDetached(t *testing.T) {
	empty := func(change func(*v1alpha1.XDPNodeState)) *v1alpha1.XDPNodeState {
		s := state("n1").Obj()
		change(&s)
		return &s
	}
	for name, tc := range map[string]struct {
		state *v1alpha1.XDPNodeState
		want  bool
	}{
		"no counters and no interfaces":           {empty(func(*v1alpha1.XDPNodeState) {}), true},
		"the agent has not seen the present spec": {empty(func(s *v1alpha1.XDPNodeState) { s.Generation++ }), false},
		"an interface is being detached": {empty(func(s *v1alpha1.XDPNodeState) {
			s.Status.Interfaces = []v1alpha1.NodeInterface{{State: v1alpha1.InterfaceDetaching}}
		}), false},
		"the spec lists a counter": {empty(func(s *v1alpha1.XDPNodeState) { s.Spec.Counters = []v1alpha1.NodeCounter{{Name: "a"}} }), false},
		"the agent has never reported": {empty(func(s *v1alpha1.XDPNodeState) {
			s.Status = v1alpha1.XDPNodeStateStatus{}
			s.Spec.Counters = []v1alpha1.NodeCounter{{Name: "a"}}
		}), true},
	} {
		if got := detached(tc.state); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
