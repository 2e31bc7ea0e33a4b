package uninstall

import (
	"context"
	"errors"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestEverywhere(t *testing.T) {
	for name, c := range map[string]struct {
		generation int64
		status     appsv1.DaemonSetStatus
		want       string
	}{
		"nobody has looked at it yet":          {2, appsv1.DaemonSetStatus{ObservedGeneration: 1}, "sweep has not been looked at yet"},
		"a node is missing":                    {2, appsv1.DaemonSetStatus{ObservedGeneration: 2, DesiredNumberScheduled: 3, NumberReady: 2}, "sweep is ready on 2 of 3 nodes"},
		"all nodes are ready":                  {2, appsv1.DaemonSetStatus{ObservedGeneration: 2, DesiredNumberScheduled: 3, NumberReady: 3}, ""},
		"there is no node that it could be on": {1, appsv1.DaemonSetStatus{ObservedGeneration: 1}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := everywhere(&appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "sweep", Generation: c.generation}, Status: c.status}); err != nil {
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
		t.Errorf("what is there is waited for: %v after %d looks", err, calls)
	}
	if err := await(t.Context(), time.Millisecond, check(missing)); !errors.Is(err, missing) {
		t.Errorf("when the time is over: %v, want what is missing", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := await(ended, time.Minute, check(missing)); err == nil {
		t.Error("no error although it was told to end")
	}
}
