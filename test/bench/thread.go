package main

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// onOneCPU runs fn on a thread of its own that stays on one CPU, the last of those allowed, and gets no signals: one of
// those that the Go runtime sends itself would have a test run begin anew.
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

// settle keeps the calling goroutine on its thread, binds that to a CPU and blocks its signals. The thread ends with the
// goroutine.
func settle() error {
	runtime.LockOSThread() // and nothing unlocks it
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

// cpuTime returns the CPU time of this thread so far. It is what getrusage(RUSAGE_THREAD) sums up, but exact at any time:
// rusage of a running thread is as old as the last tick.
func cpuTime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0, fmt.Errorf("read the CPU time: %w", err)
	}
	return time.Duration(t.Nano()), nil
}
