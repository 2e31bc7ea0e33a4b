// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// rows is the resulting table, with one row per fault.
type rows struct {
	list []*row
}

type row struct {
	fault
	sum      result
	times    int
	took     time.Duration
	mistakes []string
}

// add adds an outcome to the row of the fault, and returns the mistakes.
func (r *rows) add(t *testing.T, f fault, o outcome) (mistakes string) {
	t.Helper()
	var at *row
	for _, x := range r.list {
		if x.name == f.name {
			at = x
		}
	}
	if at == nil {
		at = &row{fault: f}
		r.list = append(r.list, at)
	}
	at.times++
	at.took += o.took
	at.sum.add(o.result)
	if o.mistakes != "" {
		at.mistakes = append(at.mistakes, o.mistakes)
	}
	t.Logf("%5.1f s  %s: %d sent, %d reported, %d lost, %d doubled", o.took.Seconds(), f.name,
		o.sent.Packets, o.reported.Packets, o.lost.Packets, o.doubled.Packets)
	return o.mistakes
}

func (r *result) add(o result) {
	r.sent, r.reported = r.sent.Plus(o.sent), r.reported.Plus(o.reported)
	r.lost, r.doubled = r.lost.Plus(o.lost), r.doubled.Plus(o.doubled)
}

// markdown returns the table.
func (r *rows) markdown(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	var all result
	times := 0
	var failed []string
	fmt.Fprintln(&b, "| fault | times | sent | reported | lost | doubled | may be lost |")
	fmt.Fprintln(&b, "|---|--:|--:|--:|--:|--:|---|")
	for _, x := range r.list {
		all.add(x.sum)
		times += x.times
		verdict := x.loses
		if verdict == "" {
			verdict = "nothing"
		}
		if len(x.mistakes) > 0 {
			verdict = fmt.Sprintf("**failed** %d of %d times; %s", len(x.mistakes), x.times, verdict)
			failed = append(failed, x.name)
		}
		line(&b, x.name, x.times, x.sum, verdict)
	}
	line(&b, "all", times, all, "")
	fmt.Fprintf(&b, "\nFrames over all nodes; bytes agree class by class: %d sent, %d reported, %d lost, %d doubled. "+
		"Seed %d. In %d watched versions of the XDPCounters, %d times a total decreased or was not the sum of its parts "+
		"(%d times, versions during an outage of the API server were missed). "+
		"Agents and controllers exited by themselves and were restarted %d times.\n",
		all.sent.Bytes, all.reported.Bytes, all.lost.Bytes, all.doubled.Bytes, *seed, w.watched.seen, w.watched.wrong, w.watched.gaps, w.restarts)
	if len(failed) > 0 {
		fmt.Fprintf(&b, "\nFailed: %s.\n", strings.Join(failed, "; "))
	}
	return b.String()
}

func line(b *strings.Builder, name string, times int, r result, verdict string) {
	number := func(c traffic.Counts) string { return fmt.Sprint(c.Packets) }
	fmt.Fprintf(b, "| %s | %d | %s | %s | %s | %s | %s |\n", name, times,
		number(r.sent), number(r.reported), number(r.lost), number(r.doubled), verdict)
}
