// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"errors"
	"fmt"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/scheme"
	"github.com/xdp-operator/xdp-operator/test/util/scrape"
)

var conflict = apierrors.NewConflict(schema.GroupResource{}, "n", errors.New("old"))

// collector returns the collector of a controller with these objects in its cache.
func collector(t *testing.T, objects ...client.Object) *Collector {
	t.Helper()
	return &Collector{
		Reader: fake.NewClientBuilder().WithScheme(scheme.New()).WithObjects(objects...).Build(),
		States: &NodeStateReconciler{}, Counters: &XDPCounterReconciler{}, Clock: testclock.NewFakePassiveClock(now),
	}
}

func TestCollector(t *testing.T) {
	workers, edge, fresh := counter("workers").c, counter("edge").c, counter("fresh").c
	workers.Status.Nodes = &v1alpha1.NodeNumbers{Selected: 3, Ready: 1, Failed: 1}
	workers.Status.ReportInterval = &metav1.Duration{Duration: 20 * time.Second}
	edge.Status.Nodes = &v1alpha1.NodeNumbers{}
	edge.Status.ReportInterval = &metav1.Duration{Duration: 1500 * time.Millisecond}

	// The nodes' clocks are two hours ahead.
	state := func(name string, reported time.Duration, inactive bool, counters ...string) *v1alpha1.XDPNodeState {
		s := &v1alpha1.XDPNodeState{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name), CreationTimestamp: metav1.NewTime(born)}}
		for _, c := range counters {
			s.Spec.Counters = append(s.Spec.Counters, v1alpha1.NodeCounter{Name: c, Inactive: inactive})
		}
		if reported != 0 {
			s.Status.ReportTime = new(metav1.NewMicroTime(now.Add(2*time.Hour - reported)))
		}
		return s
	}
	states := []*v1alpha1.XDPNodeState{
		state("n1", 5*time.Second, false, "workers"),
		state("n2", 90*time.Second, false, "workers", "gone"),
		state("n3", 30*time.Minute, true, "workers", "edge"), // inactive
		state("n4", 0, false, "fresh"),                       // has never reported
	}
	c := collector(t, &workers, &edge, &fresh, states[0], states[1], states[2], states[3])
	var seen []v1alpha1.XDPNodeState
	for i, ago := range []time.Duration{time.Hour, 30 * time.Minute, 90 * time.Second, 5 * time.Second} {
		seen = append(seen, *states[len(states)-1-i])
		c.Counters.reports.look(nil, seen, now.Add(-ago))
	}
	for operation, errs := range map[string][]error{"create": {nil, nil}, "update": {nil, conflict, errors.New("away")}, "delete": {nil}} {
		for _, err := range errs {
			if got := c.States.writes.count(operation, err); !errors.Is(got, err) {
				t.Errorf("count(%v) returns %v", err, got)
			}
		}
	}
	scrape.Check(t, "testdata/controller.metrics", c)
}

// TestMaxSeries compares the formula in docs/metrics.md with controllers that serve all series.
func TestMaxSeries(t *testing.T) {
	for _, counters := range []int{0, 1, 20} {
		var objects []client.Object
		state := &v1alpha1.XDPNodeState{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
		for i := range counters {
			c := counter(fmt.Sprintf("c%d", i)).c
			c.Status.Nodes, c.Status.ReportInterval = &v1alpha1.NodeNumbers{}, &metav1.Duration{}
			state.Spec.Counters = append(state.Spec.Counters, v1alpha1.NodeCounter{Name: c.Name})
			objects = append(objects, &c)
		}
		c := collector(t, append(objects, state)...)
		for _, operation := range []string{"create", "update", "delete"} {
			for _, err := range []error{nil, conflict, errors.New("away")} {
				_ = c.States.writes.count(operation, err)
			}
		}
		if got := scrape.Series(t, c); got != MaxSeries(counters) {
			t.Errorf("%d counters have %d series, want %d", counters, got, MaxSeries(counters))
		}
	}
}
