// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/bench/source"
)

// telling bounds what counting the frames of aggregates costs over the program that counts each aggregate as one packet.
var telling = budget{bound: 5, unit: " ns over aggregates as one"}

// Why it is known to be missed.
const (
	helperCost    = "bpf_probe_read_kernel is called for each packet; Linux 6.2 has kfuncs instead"
	aggregateCost = "once for all frames of an aggregate its headers are parsed, to count them for each"
)

// compareTelling measures the programs for generic mode in the live path, where alone there are aggregates: with single frames,
// and with a TCP stream whose sender hands over large segments.
func compareTelling(ctx context.Context, out io.Writer, e effort, budgets *ledger) error {
	which := []contender{empty, generic}
	var missing []error
	for _, c := range []contender{wireKfunc, wireHelper} {
		i, err := load(c)
		if err != nil {
			missing = append(missing, err)
			continue
		}
		if err := i.close(); err != nil {
			return err
		}
		which = append(which, c)
	}
	single, err := measureProgramTimes(ctx, e, link.XDPGenericMode, which)
	if err != nil {
		return fmt.Errorf("single frames: %w", err)
	}
	large, frames, err := measureAggregateTimes(ctx, e, which)
	if err != nil {
		return fmt.Errorf("large segments: %w", err)
	}
	fmt.Fprintf(out, "%-23s | %-45s | %-45s |\n", "", "single frames (live frames, UDP)", "large segments (a TCP stream)")
	fmt.Fprintf(out, "%-23s | %6s %11s %8s %17s | %6s %11s %8s %17s |\n", "program",
		"ns", "loads", "over one", "", "ns", "loads", "over one", "")
	for _, c := range which {
		fmt.Fprintf(out, "%-23s", c)
		for _, m := range []struct {
			what string
			of   costs
		}{{singleFrames.String(), single.costs()}, {aggregates.String(), large.costs()}} {
			over, verdict := "", ""
			if c.countsWireFrames() {
				b := telling
				switch {
				case c == wireHelper:
					b.known = helperCost
				case m.what == aggregates.String():
					b.known = aggregateCost
				}
				more := m.of[c].ns - m.of[generic].ns
				over = fmt.Sprintf("%.1f", more)
				budgets.judge(fmt.Sprintf("counting wire frames, %s, %s", c, m.what), b, more)
				verdict = b.outcome(more)
			}
			fmt.Fprintf(out, " | %6.1f %11s %8s %17s", m.of[c].ns, m.of[c].loads(), over, verdict)
		}
		fmt.Fprintln(out, " |")
	}
	for _, err := range missing {
		fmt.Fprintf(out, "not on this kernel: %v\n", err)
	}
	fmt.Fprintf(out, "\nns per skb in generic mode over empty, whose own is absolute; budget: %s.\n"+
		"A large segment had %.1f frames in the mean.\n", telling, frames)
	return nil
}

// aggregateTime is how long the stream of one measurement takes.
const aggregateTime = 20 * time.Millisecond

// measureAggregateTimes sends large segments to the programs, attached in generic mode, and returns the kernel's ns per run, and
// the mean number of frames in a segment.
func measureAggregateTimes(ctx context.Context, e effort, which []contender) (measured *samples, frames float64, err error) {
	v, err := newVethPath(ctx, aggregates)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	counted, err := netlink.LinkByName(v.counted)
	if err != nil {
		return nil, 0, fmt.Errorf("find %s: %w", v.counted, err)
	}
	all, err := loadAll(e.loads, which...)
	defer func() { err = errors.Join(err, closeAll(all)) }()
	if err != nil {
		return nil, 0, err
	}
	statistics, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil, 0, fmt.Errorf("enable statistics of programs: %w", err)
	}
	defer statistics.Close()

	measured = &samples{}
	order := make([]int, len(all))
	for n := range order {
		order[n] = n
	}
	for range e.rounds {
		for _, n := range shuffled(order) {
			spent, err := all[n].timeStream(ctx, v.path, counted.Attrs().Index)
			if err != nil {
				return nil, 0, fmt.Errorf("%s: %w", all[n].contender, err)
			}
			for _, ns := range spent {
				measured.add(column(all[n].contender), n/len(which), ns)
			}
		}
	}
	var perSegment []float64
	for _, i := range all {
		n, err := i.framesPerRun()
		if err != nil {
			return nil, 0, err
		}
		if i.countsWireFrames() {
			perSegment = append(perSegment, n)
		}
	}
	return measured, median(perSegment), nil
}

// timeStream attaches the program in generic mode, and returns how many ns each run took while it received a stream.
func (i *instance) timeStream(ctx context.Context, p path, ifindex int) (spent []float64, err error) {
	l, err := link.AttachXDP(link.XDPOptions{Program: i.program, Interface: ifindex, Flags: link.XDPGenericMode})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Detach(), l.Close()) }()
	from, err := source.Stream(ctx, p.source)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	var payload uint64
	for range 5 {
		before, err := i.program.Stats()
		if err != nil {
			return nil, err
		}
		bytes, _, err := from.Receive(aggregateTime)
		if err != nil {
			return nil, err
		}
		payload += bytes
		after, err := i.program.Stats()
		if err != nil {
			return nil, err
		}
		if runs := after.RunCount - before.RunCount; runs > 0 {
			spent = append(spent, float64((after.Runtime-before.Runtime).Nanoseconds())/float64(runs))
		}
	}
	if i.countsWireFrames() {
		err = i.countedStream(payload)
	}
	return spent, err
}

func (c contender) countsWireFrames() bool { return c == wireKfunc || c == wireHelper }

// framesPerRun returns how many packets the program has counted in each run so far, with statistics enabled all the time.
func (i *instance) framesPerRun() (float64, error) {
	got, err := i.counted()
	if err != nil {
		return 0, err
	}
	var packets uint64
	for _, counts := range got {
		packets += counts.Packets
	}
	runs, err := i.program.Stats()
	if err != nil {
		return 0, err
	}
	return float64(packets) / float64(runs.RunCount), nil
}

// countedStream returns an error unless the program has counted at least so many bytes of payload, in frames.
func (i *instance) countedStream(payload uint64) error {
	got, err := i.counted()
	if err != nil {
		return err
	}
	tcp := got[uint32(kinds()[1].frame.Class)]
	if tcp.Bytes < payload || tcp.Packets < payload/segmentBytes {
		return fmt.Errorf("%+v were counted of %d bytes", tcp, payload)
	}
	return nil
}
