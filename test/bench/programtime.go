// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// livePath bounds what ours costs over xdp1 where frames really come in.
var livePath = budget{bound: 1, unit: " ns over xdp1"}

// compareProgramTime has the kernel measure each run of the programs on the receiving end of a veth pair.
func compareProgramTime(ctx context.Context, out io.Writer, e effort, budgets *ledger) error {
	which := []contender{empty, xdp1, plain, jumbo}
	measured, err := measureProgramTimes(ctx, e, link.XDPDriverMode, which)
	if err != nil {
		return err
	}
	c := measured.costs()
	fmt.Fprintf(out, "%-15s %6s %11s %9s |\n", "program", "ns", "loads", "over xdp1")
	for _, which := range which {
		over, verdict := "", ""
		if which != empty {
			over = fmt.Sprintf("%.1f", c[which].ns-c[xdp1].ns)
		}
		if which == plain {
			verdict = " " + budgets.judge("program time in the live path", livePath, c[plain].ns-c[xdp1].ns)
		}
		fmt.Fprintf(out, "%-15s %6.1f %11s %9s |%s\n", which, c[which].ns, c[which].loads(), over, verdict)
	}
	fmt.Fprintf(out, "\nns per run over empty, whose own is absolute and mostly the reading of the clock. %d runs of each.\n",
		e.frames*e.calls*e.rounds*e.loads)
	return nil
}

// measureProgramTimes sends live frames to the programs, attached in this mode, and returns the kernel's ns per run. Every frame
// must have been counted.
func measureProgramTimes(ctx context.Context, e effort, mode link.XDPAttachFlags, which []contender) (measured *samples, err error) {
	w, err := newVethPair()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	w.mode = mode
	all, err := loadAll(e.loads, which...)
	defer func() { err = errors.Join(err, closeAll(all)) }()
	if err != nil {
		return nil, err
	}
	statistics, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil, fmt.Errorf("enable statistics of programs: %w", err)
	}
	defer statistics.Close()

	type turn struct {
		*receiver
		load int
	}
	turns := make([]turn, len(all))
	for n, i := range all {
		turns[n] = turn{&receiver{instance: i}, n / len(which)}
	}
	k := kinds()[0]
	measured = &samples{}
	for range e.rounds {
		for _, r := range shuffled(turns) {
			if err := r.place(w); err != nil {
				return nil, fmt.Errorf("%s: %w", r, err)
			}
			for range e.calls {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				spent, err := r.timeLive(w, k.frame.Data, e.frames)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", r, err)
				}
				measured.add(column(r.contender), r.load, spent)
			}
		}
	}
	for _, r := range turns {
		if err := r.countedAll(k); err != nil {
			return nil, err
		}
	}
	return measured, nil
}

// timeLive sends so many frames to the receiver and returns how many ns each took its program.
func (r *receiver) timeLive(w *vethPair, frame []byte, n int) (float64, error) {
	before, err := r.program.Stats()
	if err != nil {
		return 0, err
	}
	if _, err := r.receive(w, frame, n); err != nil {
		return 0, err
	}
	after, err := r.program.Stats()
	if err != nil {
		return 0, err
	}
	if runs := after.RunCount - before.RunCount; runs != uint64(n) {
		return 0, fmt.Errorf("%d runs of the program for %d frames", runs, n)
	}
	return float64((after.Runtime - before.Runtime).Nanoseconds()) / float64(n), nil
}
