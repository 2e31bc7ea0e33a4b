// SPDX-License-Identifier: Apache-2.0

package uninstall

import (
	"context"
	"errors"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDaemonSetReady(t *testing.T) {
	for name, c := range map[string]struct {
		generation int64
		status     appsv1.DaemonSetStatus
		want       string
	}{
		"the DaemonSet has a newer generation": {2, appsv1.DaemonSetStatus{ObservedGeneration: 1}, "the DaemonSet controller has not seen sweep yet"},
		"one of three pods is not ready":       {2, appsv1.DaemonSetStatus{ObservedGeneration: 2, DesiredNumberScheduled: 3, NumberReady: 2}, "sweep is ready on 2 of 3 nodes"},
		"all pods are ready":                   {2, appsv1.DaemonSetStatus{ObservedGeneration: 2, DesiredNumberScheduled: 3, NumberReady: 3}, ""},
		"no node is eligible":                  {1, appsv1.DaemonSetStatus{ObservedGeneration: 1}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := daemonSetReady(&appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "sweep", Generation: c.generation}, Status: c.status}); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestAwait(t *testing.T) {
	missing := errors.New("missing")
	calls := 0
	check := func(err error) func(context.Context) error {
		return func(context.Context) error { calls++; return err }
	}
	if err := await(t.Context(), time.Minute, check(nil)); err != nil || calls != 1 {
		t.Errorf("with a check that succeeds: %v after %d calls, want nil after one", err, calls)
	}
	if err := await(t.Context(), time.Millisecond, check(missing)); !errors.Is(err, missing) {
		t.Errorf("after the timeout: %v, want the error of the check", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := await(ended, time.Minute, check(missing)); err == nil {
		t.Error("no error although the context is done")
	}
}
