// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/internal/format"
)

// clock is replaced in tests.
type clock struct {
	now   func() time.Time
	after func(time.Duration) <-chan time.Time
}

func systemClock() clock {
	return clock{now: time.Now, after: time.After} //nolint:forbidigo // programs create the clock
}

// watch reads the source once per interval and prints a report.
type watch struct {
	source source
	list   func() ([]plan.Interface, error)
	show   func(report) error
	note   func(text string) // what is not exact, before the first report
	clock  clock

	interval  time.Duration
	duration  time.Duration // 0 means no limit
	count     int           // of intervals; 0 means no limit
	selected  []string      // names or alternative names of interfaces; empty for all
	untilGone bool          // return an error when no interface is counted any more
}

const aggregatedNote = "several frames that arrive as one aggregate count as one packet: in generic mode this kernel does not tell them"

// run prints a report per interval until it is done or ctx is done. Then it detaches and prints the summary.
func (w *watch) run(ctx context.Context) error {
	first, err := w.sample(sample{})
	if err != nil {
		return err
	}
	for _, i := range first.interfaces {
		if i.aggregates {
			w.note(format.Printable(i.name) + ": " + aggregatedNote)
		}
	}
	last, ended := first, error(nil)
	next := first.time
	for n := 0; w.count == 0 || n < w.count; n++ {
		// Intervals are multiples of the interval after the first sample. If printing was slow, the missed ones are skipped.
		for next = next.Add(w.interval); next.Before(w.clock.now()); {
			next = next.Add(w.interval)
		}
		if !w.wait(ctx, first.time, next) {
			break
		}
		now, err := w.sample(last)
		if err != nil {
			return err
		}
		if err := w.show(measure(last, now)); err != nil {
			return err
		}
		last = now
		if w.untilGone && now.allGone() {
			ended = fmt.Errorf("no interface is left: %w", plan.ErrInterfaceGone)
			break
		}
	}
	// Detach before reading, so that the summary includes all counted packets, and before printing, which can block.
	if err := w.source.Detach(); err != nil {
		return errors.Join(ended, err)
	}
	if last, err = w.final(last); err != nil {
		return errors.Join(ended, err)
	}
	summary := measure(first, last)
	summary.summary = true
	return errors.Join(ended, w.show(summary))
}

// wait waits for the end of the interval. It returns false if the run ends earlier.
func (w *watch) wait(ctx context.Context, started, until time.Time) bool {
	end := started.Add(w.duration)
	ends := w.duration > 0 && end.Before(until)
	if ends {
		until = end
	}
	select {
	case <-ctx.Done():
		return false
	case <-w.clock.after(until.Sub(w.clock.now())):
		return !ends && ctx.Err() == nil
	}
}

// sample reads the current counts.
func (w *watch) sample(before sample) (sample, error) {
	attached, err := w.source.Attached()
	if err != nil {
		return sample{}, err
	}
	interfaces, err := w.list()
	if err != nil {
		return sample{}, err
	}
	// Counts are read last, because rates are computed over the time between two samples.
	readings, err := w.source.Read()
	if err != nil {
		return sample{}, err
	}
	return newSample(w.clock.now(), w.selected, attached, readings, interfaces, before), nil
}

// final returns the sample with the final counts, after detaching.
func (w *watch) final(last sample) (sample, error) {
	readings, err := w.source.Read()
	if err != nil {
		return sample{}, err
	}
	s := sample{time: w.clock.now(), interfaces: last.interfaces, totals: maps.Clone(last.totals)}
	for _, r := range readings {
		s.totals[r.Map] = r.Totals
	}
	return s, nil
}
