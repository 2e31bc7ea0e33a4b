// SPDX-License-Identifier: Apache-2.0

// Command bench measures the cost of the counting program and compares it with the budgets:
//
//	go run ./test/bench
//
// It requires root and an idle machine. Everything runs in a sandbox, which is removed at the end. The exit status is 1 if a
// budget is missed. docs/performance.md describes the measurements.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/cilium/ebpf/rlimit"

	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
)

var errMissed = errors.New("a budget is missed")

func main() {
	hasty := flag.Bool("quick", false, "Measure a tenth as much: for a first look only.")
	from := flag.String("from", "", "Measure only what is left of the traffic from the source at this `address`, without a sandbox: "+
		"this is for the guests of test/kernels.")
	on := flag.String("on", "eth0", "With -from: the `interface`.")
	prefix := flag.String("prefix", "", "With -from: the interface's address and the length of its `prefix`.")
	flag.Parse()
	e := full
	if *hasty {
		e = quick
	}
	var err error
	if *from != "" {
		err = runFrom(os.Stdout, *from, *on, *prefix)
	} else {
		err = run(os.Stdout, e)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, e effort) error {
	if _, err := sandbox.Enter(sandbox.Options{}); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// Kernels before 5.11 charge maps to the limit of locked memory. If raising it fails, the limit can still be sufficient.
	_ = rlimit.RemoveMemlock()
	debug.SetGCPercent(-1) // Go's memory is not measured here

	if err := describeMachine(out); err != nil {
		return err
	}
	var budgets ledger
	for _, section := range []struct {
		title string
		run   func(context.Context, io.Writer, effort, *ledger) error
	}{
		{"What being attached leaves of the traffic", pinned(compareAttachments)},
		{"Cost per packet, ns over an empty program (BPF_PROG_TEST_RUN)", pinned(compareCosts)},
		{"Throughput over a native veth pair (live frames)", pinned(compareThroughput)},
		{"Program time in the live path (kernel.bpf_stats)", pinned(compareProgramTime)},
		{"Counting the frames of aggregates in generic mode: program time in the live path", pinned(compareTelling)},
		{"Reading the counts of one interface", measureSnapshot},
		{"Memory per interface", measureMemory},
	} {
		fmt.Fprintf(out, "\n%s\n\n", section.title)
		if err := section.run(ctx, out, e, &budgets); err != nil {
			return fmt.Errorf("%s: %w", section.title, err)
		}
	}
	return conclude(out, budgets)
}

// runFrom measures what is left of the traffic from a source.
func runFrom(out io.Writer, from, on, prefix string) error {
	address, err := netip.ParsePrefix(prefix)
	if err != nil {
		return err
	}
	_ = rlimit.RemoveMemlock() // as in run
	var budgets ledger
	err = onOneCPU(func() error { return compareFrom(context.Background(), out, emulated, &budgets, from, on, address) })
	if err != nil {
		return err
	}
	return conclude(out, budgets)
}

// pinned returns the section bound to one CPU.
func pinned(section func(context.Context, io.Writer, effort, *ledger) error) func(context.Context, io.Writer, effort, *ledger) error {
	return func(ctx context.Context, out io.Writer, e effort, budgets *ledger) error {
		return onOneCPU(func() error { return section(ctx, out, e, budgets) })
	}
}

// conclude prints the missed budgets. It returns errMissed if there are any, except those that are known to be missed.
func conclude(out io.Writer, budgets ledger) error {
	load, err := loadAverage()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n%d of %d budgets kept; load average at the end %s\n",
		budgets.judged-len(budgets.missed)-len(budgets.known), budgets.judged, load)
	if len(budgets.known) > 0 {
		fmt.Fprintf(out, "known to be missed:\n  %s\n", strings.Join(budgets.known, "\n  "))
	}
	if len(budgets.missed) > 0 {
		fmt.Fprintf(out, "missed:\n  %s\n", strings.Join(budgets.missed, "\n  "))
		return errMissed
	}
	return nil
}
