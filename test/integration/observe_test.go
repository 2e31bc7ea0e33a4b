// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/audit"
)

// observe watches every version of every object during the test. The test fails if the classes of a version do not add up to
// the total, or if a total is less than in an earlier version.
func observe(t *testing.T) {
	t.Helper()
	watcher, err := client.NewWithWatch(c.Config(), client.Options{Scheme: c.Client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	counters, states := 0, 0
	for _, list := range []client.ObjectList{&v1alpha1.XDPCounterList{}, &v1alpha1.XDPNodeStateList{}} {
		w, err := watcher.Watch(ctx, list)
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			highest := audit.Highest{}
			for e := range w.ResultChan() {
				if e.Type == watch.Deleted || e.Type == watch.Error {
					continue
				}
				switch o := e.Object.(type) {
				case *v1alpha1.XDPCounter:
					counters++
					if err := highest.CheckCounter(o); err != nil {
						t.Error(err)
					}
				case *v1alpha1.XDPNodeState:
					states++
					if err := highest.CheckNodeState(o); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		group.Wait()
		if counters == 0 || states == 0 {
			t.Errorf("observed %d versions of counters and %d of node states", counters, states)
		}
		t.Logf("observed %d versions of counters and %d of node states", counters, states)
	})
}
