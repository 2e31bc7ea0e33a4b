// SPDX-License-Identifier: Apache-2.0

// Command oracle compares the counting program with tshark. It replays captures on a veth pair, on one end of which the
// program counts in native mode, and compares the packets and bytes of each class with tshark's result for the same files.
//
//	go run ./test/oracle FILE...
//
// It accepts any pcap or pcapng file. Frames that cannot be replayed are listed with the reason. If a frame has another class
// for tshark, and it is not one of the known differences of definition (compare.go), the exit status is 1.
//
// It requires root and tshark. Everything runs in a sandbox, which is removed at the end.
package main

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
)

// pins is the path of the sandbox's own BPF file system.
const pins = "/sys/fs/bpf"

var errDifferent = errors.New("tshark and the program differ")

func main() {
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: oracle FILE...\n\nReplays captures and compares what is counted with what tshark says of them.")
		flag.PrintDefaults()
	}
	columns := flag.Bool("columns", false, "Print what tshark is asked about each frame, and do nothing else.")
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(os.Stdout, flag.Args(), *columns); err != nil {
		fmt.Fprintln(os.Stderr, "oracle:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, captures []string, columns bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if columns {
		return printColumns(ctx, out, captures)
	}
	if _, err := findTshark(); err != nil {
		return err
	}
	if _, err := sandbox.Enter(sandbox.Options{}); err != nil {
		return err
	}
	var errs []error
	for _, capture := range captures {
		fmt.Fprintf(out, "%s\n", capture)
		if err := consult(ctx, out, pins, capture); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Base(capture), err))
		}
		fmt.Fprintln(out)
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

func printColumns(ctx context.Context, out io.Writer, captures []string) error {
	for _, capture := range captures {
		columns, err := askTshark(ctx, capture)
		if err != nil {
			return err
		}
		if _, err := out.Write(columns); err != nil {
			return err
		}
	}
	return nil
}

// consult compares one capture.
func consult(ctx context.Context, out io.Writer, pins, capture string) error {
	frames, err := readCapture(capture)
	if err != nil {
		return err
	}
	columns, err := askTshark(ctx, capture)
	if err != nil {
		return err
	}
	w, err := newVethPair(pins, mtuFor(frames))
	if err != nil {
		return err
	}
	return errors.Join(judge(out, w, frames, columns), w.close())
}

// judge replays a capture and compares it with the columns of tshark. The error is errDifferent if they differ in what
// is not known.
func judge(out io.Writer, w *vethPair, frames []frame, columns []byte) error {
	opinions, err := parseOpinions(columns)
	if err != nil {
		return err
	}
	counted, err := w.replay(frames)
	if err != nil {
		return err
	}
	c, err := compare(frames, opinions, counted)
	if err != nil {
		return err
	}
	c.write(out)
	if c.counted != c.classified {
		wrong, err := w.locate(frames)
		if err != nil {
			return err
		}
		for _, f := range wrong {
			fmt.Fprintf(out, "the program counts frame %d otherwise than it should\n%s", f.number, hex.Dump(f.data[:min(len(f.data), 128)]))
		}
	}
	if !c.equal() {
		return errDifferent
	}
	return nil
}
