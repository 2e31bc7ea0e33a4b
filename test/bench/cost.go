// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cilium/ebpf"
)

// effort is the number of measurements.
type effort struct {
	loads  int // of each program
	rounds int // in each of which every load of every program has its turn
	calls  int // of BPF_PROG_TEST_RUN in a turn, each of which is a measurement
	runs   int // of a program in a call
	frames int // sent live in a call

	transfer transfer // of what attaching costs
}

// There are many short calls, of half a millisecond, or 2 ms for live frames. The core can be shared with another CPU, even
// of another virtual machine, which is active for some milliseconds at a time. The longer a call is, the fewer calls are
// undisturbed. There are many loads, because they differ by more than half of the measured cost.
var (
	full = effort{
		loads: 24, rounds: 4, calls: 20, runs: 20_000, frames: 4096,
		transfer: transfer{rounds: 25, warmUp: 60 * time.Millisecond, stream: 200 * time.Millisecond, datagrams: 100 * time.Millisecond},
	}
	quick = effort{
		loads: 8, rounds: 2, calls: 20, runs: 10_000, frames: 4096,
		transfer: transfer{rounds: 3, warmUp: 50 * time.Millisecond, stream: 200 * time.Millisecond, datagrams: 100 * time.Millisecond},
	}
)

// emulated is for an emulated machine, which is slow.
var emulated = transfer{rounds: 15, warmUp: 400 * time.Millisecond, stream: 800 * time.Millisecond, datagrams: 400 * time.Millisecond}

// persistence is the maximum factor by which the number of rounds grows if too many measurements are disturbed.
const persistence = 3

// loadAll loads programs several times each. The caller closes those that were loaded, even if there is an error.
func loadAll(loads int, which ...contender) ([]*instance, error) {
	var all []*instance
	for range loads {
		for _, c := range which {
			i, err := load(c)
			if err != nil {
				return all, err
			}
			all = append(all, i)
		}
	}
	return all, nil
}

func closeAll(all []*instance) error {
	var errs []error
	for _, i := range all {
		errs = append(errs, i.close())
	}
	return errors.Join(errs...)
}

// compareCosts measures the cost of each kind of frame for each program, and prints a row for it.
func compareCosts(ctx context.Context, out io.Writer, e effort, budgets *ledger) (err error) {
	// No frames are sent on it: see hold.
	w, err := newVethPair()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	all, err := loadAll(e.loads, empty, xdp1, limit, plain, jumbo)
	defer func() { err = errors.Join(err, closeAll(all)) }()
	if err != nil {
		return err
	}
	if err := writeCostHeader(out); err != nil {
		return err
	}
	var floor, cycles []float64
	for _, k := range kinds() {
		measured, cycle, err := measureCosts(ctx, e, w.attach, all, k)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		floor = append(floor, slices.Concat(measured[empty]...)...)
		c := measured.costs()
		cycles = append(cycles, cycle)
		verdict := k.judge(budgets, c, measured.over(onPlainIPv6), cycle)
		if err := writeCosts(out, k, c, verdict); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(out, "\nloads: of %d, each with its machine code elsewhere, the cheapest and the dearest\n"+
		"disturbed: %.0f %% of the measurements of the empty program (a tenth over the undisturbed)\n"+
		"a cycle of the core: %.3f ns, which is %.2f GHz, by operations that depend on each other\n",
		e.loads, 100*disturbed(floor), median(cycles), 1/median(cycles))
	return err
}

// measureCosts measures the cost of a kind of frame for each program, and meanwhile how many ns a cycle takes. hold attaches a
// program to some interface in native mode. Otherwise the kernel would update its dispatcher for direct calls in each test run,
// which waits twice for all CPUs, about 10 ms each time.
func measureCosts(ctx context.Context, e effort, hold func(*ebpf.Program) error, all []*instance, k kind) (*samples, float64, error) {
	var probes []probe
	loads := [contenders]int{}
	for _, i := range all {
		load := loads[i.contender]
		loads[i.contender]++
		probes = append(probes, probe{column(i.contender), load, i.program, k.frame.Data})
		// It is measured again, because the speed of the machine can have changed since its row.
		if k.headers > 0 && i.contender == plain {
			probes = append(probes, probe{onPlainIPv6, load, i.program, named("UDP over IPv6").Data})
		}
	}
	var measured samples
	var cycles []float64
	for round := 0; round < e.rounds || round < persistence*e.rounds && measured.unsettled(); round++ {
		some, err := measureCycles(e.calls)
		if err != nil {
			return nil, 0, err
		}
		cycles = append(cycles, some...)
		for _, p := range shuffled(probes) {
			if err := hold(p.program); err != nil {
				return nil, 0, err
			}
			for range e.calls {
				if ctx.Err() != nil {
					return nil, 0, ctx.Err()
				}
				spent, err := timeRuns(p.program, p.frame, e.runs)
				if err != nil {
					return nil, 0, err
				}
				measured.add(p.column, p.load, float64(spent.Nanoseconds())/float64(e.runs))
			}
		}
	}
	return &measured, undisturbed(cycles), nil
}

// shuffled returns the elements in a random order. In a fixed order some would have an advantage, because the kernel's code
// for direct calls alternates between two addresses.
func shuffled[E any](s []E) []E {
	s = slices.Clone(s)
	rand.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
	return s
}

// probe is a program with a frame to run it on, and the column of the result.
type probe struct {
	column
	load    int
	program *ebpf.Program
	frame   []byte
}

// timeRuns returns the CPU time of a number of runs of a program on a frame with BPF_PROG_TEST_RUN. The kernel's own result is
// a whole number of ns per run, which is not accurate enough.
func timeRuns(program *ebpf.Program, frame []byte, runs int) (time.Duration, error) {
	options := ebpf.RunOptions{Data: frame, Repeat: uint32(runs)}
	before, err := cpuTime()
	if err != nil {
		return 0, err
	}
	if _, err := program.Run(&options); err != nil {
		return 0, err
	}
	after, err := cpuTime()
	return after - before, err
}
