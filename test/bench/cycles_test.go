// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"
)

func TestDependentOperations(t *testing.T) {
	const n = 3
	want := uint64(1)
	for range n * operations / 2 {
		want = (want + 5) ^ 5
	}
	if got := dependentOperations(n, 1, 5); got != want {
		t.Errorf("got %d, want %d: another number of operations is executed than %d", got, want, n*operations)
	}
}

func TestMeasureCycles(t *testing.T) {
	const samples = 20
	var all []float64
	began := time.Now()
	err := onOneCPU(func() (err error) {
		all, err = measureCycles(samples)
		return err
	})
	if err != nil || len(all) != samples {
		t.Fatalf("%d measurements: %v", len(all), err)
	}
	// An emulator needs several ns for an operation. No core has a clock of 10 GHz.
	longest := float64(time.Since(began).Nanoseconds())
	for _, ns := range all {
		if ns < 0.1 || ns > longest {
			t.Errorf("a cycle takes %g ns", ns)
		}
	}
}
