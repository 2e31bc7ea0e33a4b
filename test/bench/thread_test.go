// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOnOneCPU(t *testing.T) {
	if err := onOneCPU(func() error {
		var own unix.CPUSet
		if err := unix.SchedGetaffinity(0, &own); err != nil {
			return err
		}
		if n := own.Count(); n != 1 {
			t.Errorf("%d CPUs are allowed", n)
		}
		before, err := cpuTime()
		if err != nil {
			return err
		}
		for range 1_000_000 {
			runtime.KeepAlive(own)
		}
		after, err := cpuTime()
		if after <= before {
			t.Errorf("from %v to %v of CPU time", before, after)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var other unix.CPUSet
	if err := unix.SchedGetaffinity(0, &other); err != nil {
		t.Fatal(err)
	}
	if n := other.Count(); n != runtime.NumCPU() {
		t.Errorf("this thread may use %d CPUs of %d", n, runtime.NumCPU())
	}
}
