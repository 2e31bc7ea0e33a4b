// SPDX-License-Identifier: Apache-2.0

// Command xdpcount counts the packets that interfaces of this host receive, per protocol, and shows them live. It is the
// successor of the kernel sample xdp1. docs/xdpcount.md describes flags, output and exit statuses.
//
//	xdpcount [-S|-N] [flags] IFACE...        attaches the counting program while it runs
//	xdpcount --pinned [flags] [IFACE...]     reads the counts of an agent, and attaches nothing
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/links"
	"github.com/xdp-operator/xdp-operator/cmd/internal/display"
)

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(os.Stdout, usage())
		return
	}
	if err == nil {
		err = count(o, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "xdpcount: "+statuses.Line(err))
	}
	os.Exit(statuses.Status(err))
}

// count counts with the options until it is done or receives a signal.
func count(o options, out *os.File) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	// A second signal terminates the process immediately. The kernel then detaches the programs.
	context.AfterFunc(ctx, stop)

	list := links.Links{}.List
	counting, shown, err := open(o, list)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, counting.Close()) }()
	w := watch{
		source:    counting,
		list:      list,
		show:      printer(o.output, out),
		note:      func(text string) { fmt.Fprintln(os.Stderr, "xdpcount: "+text) },
		clock:     systemClock(),
		interval:  o.interval,
		duration:  o.duration,
		count:     o.count,
		selected:  shown,
		untilGone: !o.pinned,
	}
	return w.run(ctx)
}

// printer returns a function that prints reports to the file, which can be a terminal.
func printer(output string, out *os.File) func(report) error {
	if output == outputJSON {
		return func(r report) error { return writeJSON(out, r) }
	}
	s := &display.Screen{Out: out, Size: func() (display.Size, bool) { return display.Terminal(out) }}
	return func(r report) error { return show(s, r) }
}
