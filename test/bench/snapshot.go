// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
)

// The budgets of reading all classes of one interface on two CPUs.
var (
	snapshotTime        = budget{bound: 5000, unit: " ns"}
	snapshotAllocations = budget{bound: 0, unit: " allocations"}
)

// measureSnapshot runs the benchmark of package datapath: it cannot be reached from outside.
func measureSnapshot(ctx context.Context, out io.Writer, _ effort, budgets *ledger) error {
	benchmark := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkSnapshot$", "-count", "5", "./agent/datapath")
	benchmark.Stderr = os.Stderr
	text, err := benchmark.Output()
	if err != nil {
		return fmt.Errorf("run BenchmarkSnapshot in the repository's root: %w\n%s", err, text)
	}
	times, allocations, err := parseBenchmark(text)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "ns           %s (of 5 runs from %.0f to %.0f)\n",
		budgets.judge("snapshot", snapshotTime, median(times)), quantile(0, times), quantile(1, times))
	fmt.Fprintf(out, "allocations  %s\n",
		budgets.judge("snapshot", snapshotAllocations, quantile(1, allocations)))
	fmt.Fprintln(out, "system calls none: the counts are mapped memory, and what is measured, all classes of two CPUs, only loads from it")
	return nil
}

var benchmarkLine = regexp.MustCompile(`(?m)^Benchmark\S+\s+\d+\s+([\d.]+) ns/op\s+\d+ B/op\s+(\d+) allocs/op$`)

// parseBenchmark returns ns and allocations per operation from the output of go test -bench.
func parseBenchmark(text []byte) (times, allocations []float64, err error) {
	for _, line := range benchmarkLine.FindAllSubmatch(text, -1) {
		ns, err := strconv.ParseFloat(string(line[1]), 64)
		if err != nil {
			return nil, nil, err
		}
		n, err := strconv.ParseFloat(string(line[2]), 64)
		if err != nil {
			return nil, nil, err
		}
		times, allocations = append(times, ns), append(allocations, n)
	}
	if len(times) == 0 {
		return nil, nil, errors.New("go test printed no benchmark")
	}
	return times, allocations, nil
}
