// SPDX-License-Identifier: Apache-2.0

package main

import "runtime"

// What a core does for rare frames is given in cycles, because cores differ in their clock more than in the cycles that the
// same instructions take. The time-stamp counter has a clock of its own, which is not the core's (x86: Intel's manual, volume 3,
// "Invariant TSC"), and a virtual machine has no counter of cycles. So the cycle is measured: each addition or exclusive or of
// dependentOperations needs the result of the one before and takes one cycle on every core of amd64 and arm64.

// operations is the number of operations in one iteration of dependentOperations.
const operations = 16

// dependentOperations executes n times so many operations. The operands are registers: recent cores execute the addition of a
// constant in no time. Additions and exclusive ors alternate, so that a compiler cannot combine them.
//
//go:noinline
func dependentOperations(n int, x, y uint64) uint64 {
	for range n {
		x += y
		x ^= y
		x += y
		x ^= y
		x += y
		x ^= y
		x += y
		x ^= y
		x += y
		x ^= y
		x += y
		x ^= y
		x += y
		x ^= y
		x += y
		x ^= y
	}
	return x
}

// measureCycles returns measurements of the ns per cycle of the CPU on which the calling thread runs.
func measureCycles(samples int) ([]float64, error) {
	const iterations = 10_000 // about 50 µs
	var all []float64
	for range samples {
		before, err := cpuTime()
		if err != nil {
			return nil, err
		}
		runtime.KeepAlive(dependentOperations(iterations, 1, 3))
		after, err := cpuTime()
		if err != nil {
			return nil, err
		}
		all = append(all, float64((after-before).Nanoseconds())/(iterations*operations))
	}
	return all, nil
}
