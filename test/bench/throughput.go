// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"
)

// throughput bounds what share of the frames per second of an empty program is left with ours.
var throughput = budget{bound: 97, atLeast: true, unit: " % of empty"}

// receiver is what is put on the receiving end.
type receiver struct {
	*instance        // nil for no program
	sent      uint64 // frames, since it was loaded
	times     []float64
}

func (r *receiver) String() string {
	if r.instance == nil {
		return "no program"
	}
	return r.contender.String()
}

// rate returns million frames per second, undisturbed.
func (r *receiver) rate() float64 {
	return 1e3 / undisturbed(r.times)
}

// compareThroughput sends frames from one end of a veth pair to the other, with each program in turn, and prints how
// many there are in a second. Every frame that was sent must have arrived, and have been counted.
func compareThroughput(ctx context.Context, out io.Writer, e effort, budgets *ledger) (err error) {
	w, err := newVethPair()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	all, err := loadAll(1, empty, xdp1, plain, jumbo)
	defer func() { err = errors.Join(err, closeAll(all)) }()
	if err != nil {
		return err
	}
	receivers := []*receiver{{}}
	for _, i := range all {
		receivers = append(receivers, &receiver{instance: i})
	}
	const floor = 1 // of receivers: the empty program

	k := kinds()[0]
	for range e.rounds * e.loads {
		for _, r := range shuffled(receivers) {
			if err := r.place(w); err != nil {
				return fmt.Errorf("%s: %w", r, err)
			}
			for range e.calls {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				took, err := r.receive(w, k.frame.Data, e.frames)
				if err != nil {
					return fmt.Errorf("%s: %w", r, err)
				}
				r.times = append(r.times, float64(took.Nanoseconds())/float64(e.frames))
			}
		}
	}

	fmt.Fprintf(out, "%-15s %12s %10s %6s %10s |\n", "receiver", "ns per frame", "quartiles", "Mpps", "% of empty")
	for _, r := range receivers {
		verdict := ""
		share := 100 * r.rate() / receivers[floor].rate()
		if r.instance != nil {
			if err := r.countedAll(k); err != nil {
				return err
			}
			if r.contender == plain {
				verdict = " " + budgets.judge("throughput", throughput, share)
			}
		}
		fmt.Fprintf(out, "%-15s %12.1f %10s %6.2f %10.1f |%s\n", r, undisturbed(r.times),
			fmt.Sprintf("%.0f..%.0f", quantile(0.25, r.times), quantile(0.75, r.times)), r.rate(), share, verdict)
	}
	fmt.Fprintf(out, "\n%d frames of %d bytes to each, sent and received by one CPU. All of them arrived; xdp1 and ours counted every one.\n",
		receivers[floor].sent, len(k.frame.Data))
	return nil
}

// place puts the program on the receiving end, or none.
func (r *receiver) place(w *vethPair) error {
	if r.instance == nil {
		if err := w.detach(); err != nil {
			return fmt.Errorf("detach: %w", err)
		}
		return nil
	}
	if err := w.attach(r.program); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

// receive sends so many frames to the receiver, waits until they have arrived and returns how long the sending took.
func (r *receiver) receive(w *vethPair, frame []byte, n int) (time.Duration, error) {
	before, err := w.received()
	if err != nil {
		return 0, err
	}
	took, err := w.transmit(frame, n)
	if err != nil {
		return 0, fmt.Errorf("send %d frames: %w", n, err)
	}
	r.sent += uint64(n)
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		now, err := w.received()
		if err != nil {
			return 0, err
		}
		if now-before == uint64(n) {
			return took, nil
		}
		if now-before > uint64(n) || time.Now().After(deadline) {
			return 0, fmt.Errorf("%d frames were sent and %d received", n, now-before)
		}
	}
}

// countedAll returns an error unless the program has counted exactly what was sent to it.
func (r *receiver) countedAll(k kind) error {
	got, err := r.counted()
	if err != nil {
		return err
	}
	if want := r.expected(k.frame, r.sent); !maps.Equal(want, got) {
		return fmt.Errorf("%s counted %v of %v", r, got, want)
	}
	return nil
}
