// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/memapi"
)

// A spec that has to wait is written when its time has come, and with what is wanted then.
func TestReconcileNodeStatePacesSpecs(t *testing.T) {
	clock := testclock.NewFakeClock(now)
	server := memapi.New(clock.Now)
	client := &memapi.Client{Server: server}
	r := &NodeStateReconciler{Client: client, Live: client, Clock: clock, Budget: Budget{WritesPerSecond: 2}}
	c := counter("all").Obj()
	if err := client.Create(t.Context(), &c); err != nil {
		t.Fatal(err)
	}
	names := []string{"n1", "n2", "n3"}
	for _, name := range names {
		n := node(name, "edge")
		if err := client.Create(t.Context(), &n); err != nil {
			t.Fatal(err)
		}
	}
	// reconcile returns how long each node has to wait.
	reconcile := func() (waits []time.Duration) {
		t.Helper()
		for _, name := range names {
			result, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Name: name}})
			if err != nil {
				t.Fatal(err)
			}
			waits = append(waits, result.RequeueAfter)
		}
		return waits
	}
	expect := func(waits []time.Duration, written ...string) {
		t.Helper()
		if diff := cmp.Diff(waits, reconcile()); diff != "" {
			t.Errorf("waits (-want +got):\n%s", diff)
		}
		for _, name := range names {
			err := client.Get(t.Context(), types.NamespacedName{Name: name}, &v1alpha1.XDPNodeState{})
			want := false
			for _, w := range written {
				want = want || w == name
			}
			if (err == nil) != want {
				t.Errorf("the node state of %s: %v, want it written: %v", name, err, want)
			}
		}
	}
	// A new node takes two reports, which is one second of this budget.
	expect([]time.Duration{0, time.Second, 2 * time.Second}, "n1")
	clock.Step(400 * time.Millisecond)
	expect([]time.Duration{0, 600 * time.Millisecond, 1600 * time.Millisecond}, "n1")
	clock.Step(600 * time.Millisecond)
	expect([]time.Duration{0, 0, time.Second}, "n1", "n2")

	// A node that needs no spec any more gives up its place.
	if err := client.Delete(t.Context(), &c); err != nil {
		t.Fatal(err)
	}
	if waits := reconcile(); waits[2] != 0 || len(r.pace.turns) > 2 {
		t.Errorf("a node without counters waits %v, places %v", waits[2], r.pace.turns)
	}
}
