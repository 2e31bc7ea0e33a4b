// SPDX-License-Identifier: Apache-2.0

package objects_test

import (
	"context"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/objects"
	"github.com/xdp-operator/xdp-operator/test/util/scheme"
)

// newClient returns a client of an API server that has the counter "a".
func newClient(t *testing.T) client.Client {
	t.Helper()
	x := counter()
	return fake.NewClientBuilder().WithScheme(scheme.New()).WithObjects(x).WithStatusSubresource(x).Build()
}

func counter() *v1alpha1.XDPCounter {
	x := &v1alpha1.XDPCounter{}
	x.Name = "a"
	return x
}

// writeStatus writes the status as a controller does, between the reading and the writing of an edit.
func writeStatus(t *testing.T, c client.Client, generation int64) {
	t.Helper()
	x := counter()
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(x), x); err != nil {
		t.Fatal(err)
	}
	x.Status.ObservedGeneration = generation
	if err := c.Status().Update(t.Context(), x); err != nil {
		t.Fatal(err)
	}
}

func stored(t *testing.T, c client.Client) *v1alpha1.XDPCounter {
	t.Helper()
	x := counter()
	if err := c.Get(context.WithoutCancel(t.Context()), client.ObjectKeyFromObject(x), x); err != nil {
		t.Fatal(err)
	}
	return x
}

func TestEditOfASpecKeepsAStatusWrittenMeanwhile(t *testing.T) {
	c := newClient(t)
	x := counter()
	err := objects.Edit(t.Context(), c, x, func() {
		writeStatus(t, c, 7)
		x.Spec.ReportInterval.Duration = time.Minute
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := stored(t, c); got.Spec.ReportInterval.Duration != time.Minute || got.Status.ObservedGeneration != 7 {
		t.Errorf("stored are interval %v and observed generation %d", got.Spec.ReportInterval.Duration, got.Status.ObservedGeneration)
	}
}

func TestEditOfAStatusStartsAgainAfterAConflict(t *testing.T) {
	c := newClient(t)
	x := counter()
	calls := 0
	err := objects.EditStatus(t.Context(), c, x, func() {
		if calls++; calls == 1 {
			writeStatus(t, c, 7)
		}
		x.Status.ObservedGeneration++
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := stored(t, c).Status.ObservedGeneration; got != 8 || calls != 2 {
		t.Errorf("observed generation %d is stored after %d calls", got, calls)
	}
}
