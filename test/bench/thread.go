// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// onOneCPU runs fn on a separate thread that is bound to one CPU, the last of those allowed, and blocks signals, because a
// signal of the Go runtime would make the kernel restart a test run.
func onOneCPU(fn func() error) error {
	done := make(chan error)
	go func() {
		done <- func() error {
			if err := settle(); err != nil {
				return err
			}
			return fn()
		}()
	}()
	return <-done
}

// settle locks the calling goroutine to its thread, binds the thread to a CPU and blocks its signals. The thread exits with the
// goroutine.
func settle() error {
	runtime.LockOSThread() // never unlocked
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return fmt.Errorf("find the CPUs of this thread: %w", err)
	}
	for cpu, left := 0, allowed.Count(); left > 0; cpu++ {
		if allowed.IsSet(cpu) {
			one.Zero()
			one.Set(cpu)
			left--
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("bind this thread to a CPU: %w", err)
	}
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil); err != nil {
		return fmt.Errorf("block the signals of this thread: %w", err)
	}
	return nil
}

// cpuTime returns the CPU time of this thread. Unlike getrusage(RUSAGE_THREAD), which is only updated at each tick, it is exact
// at any time.
func cpuTime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0, fmt.Errorf("read the CPU time: %w", err)
	}
	return time.Duration(t.Nano()), nil
}
