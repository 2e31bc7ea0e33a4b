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

// effort says how much is measured.
type effort struct {
	loads  int // of each program
	rounds int // in each of which every load of every program has its turn
	calls  int // of BPF_PROG_TEST_RUN in a turn, each of which is a measurement
	runs   int // of a program in a call
	frames int // sent live in a call
}

// Calls are short, half a millisecond and 2 ms for live frames, and many. The core may be shared with another CPU, even
// one of another virtual machine; it then comes and goes within milliseconds, and the longer a call the fewer are left
// alone. Loads are many, since they differ by more than half of what is measured.
var (
	full  = effort{loads: 24, rounds: 4, calls: 20, runs: 20_000, frames: 4096}
	quick = effort{loads: 8, rounds: 2, calls: 20, runs: 10_000, frames: 4096}
)

// persistence is how many times as many rounds are made at most where the machine's neighbours leave too little alone.
const persistence = 3

// loadAll loads some programs several times each. What was loaded is to be closed, also if there is an error.
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

// compareCosts measures what each kind of frame costs each program and prints a row for it.
func compareCosts(ctx context.Context, out io.Writer, e effort, budgets *ledger) (err error) {
	// Nothing is sent on it: see hold.
	w, err := newWire()
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
	var floor []float64
	for _, k := range kinds() {
		measured, err := measureCosts(ctx, e, w.attach, all, k)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		floor = append(floor, slices.Concat(measured[empty]...)...)
		c := measured.costs()
		verdict := ""
		switch k.budget {
		case both:
			verdict = short(c[plain].toReference) + " xdp1 on " + reference + ", no budget"
		case worst:
			verdict = budgets.judge("cost of "+k.name, k.budget, c[plain].toReference)
		default:
			verdict = budgets.judge("cost of "+k.name, k.budget, c[plain].toXDP1)
		}
		if err := writeCosts(out, k, c, verdict); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(out, "\nloads: of %d, each with its machine code elsewhere, the cheapest and the dearest\n"+
		"disturbed: %.0f %% of the measurements of the empty program (a tenth over the undisturbed)\n", e.loads, 100*disturbed(floor))
	return err
}

// measureCosts measures what a kind of frame costs each program. hold puts a program on some interface in native mode:
// as long as it is there, the kernel has not to be told anew with each call that it may be called directly, for which it
// waits twice for all CPUs, some 10 ms each time.
func measureCosts(ctx context.Context, e effort, hold func(*ebpf.Program) error, all []*instance, k kind) (*samples, error) {
	var probes []probe
	loads := [contenders]int{}
	for _, i := range all {
		load := loads[i.contender]
		loads[i.contender]++
		probes = append(probes, probe{column(i.contender), load, i.program, k.frame.Data})
		// The machine may be slower than it was when the reference had its row, so that is measured again.
		if (k.budget == worst || k.budget == both) && i.contender == xdp1 {
			probes = append(probes, probe{xdp1OnReference, load, i.program, kinds()[0].frame.Data})
		}
	}
	var measured samples
	for round := 0; round < e.rounds || round < persistence*e.rounds && measured.unsettled(); round++ {
		for _, p := range shuffled(probes) {
			if err := hold(p.program); err != nil {
				return nil, err
			}
			for range e.calls {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				spent, err := timeRuns(p.program, p.frame, e.runs)
				if err != nil {
					return nil, err
				}
				measured.add(p.column, p.load, float64(spent.Nanoseconds())/float64(e.runs))
			}
		}
	}
	return &measured, nil
}

// shuffled returns the elements in a random order. In one that is always the same some would have an advantage: the code
// by which the kernel calls the program of the hour directly lies in two places in turn.
func shuffled[E any](s []E) []E {
	s = slices.Clone(s)
	rand.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
	return s
}

// probe is a program with a frame to run it on, and where the result belongs.
type probe struct {
	column
	load    int
	program *ebpf.Program
	frame   []byte
}

// timeRuns returns the CPU time of so many runs of a program on a frame, by BPF_PROG_TEST_RUN. The kernel's own figure
// is a whole number of ns per run, which is too coarse.
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
