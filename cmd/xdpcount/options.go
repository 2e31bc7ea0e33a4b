// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/xdp-operator/xdp-operator/agent/plan"
)

// errUsage is an invalid command line.
var errUsage = errors.New("usage")

const (
	outputTable = "table"
	outputJSON  = "json"
)

// minInterval is the minimum of --interval. Below it, printing would take most of the time.
const minInterval = 10 * time.Millisecond

type options struct {
	names    []string // of interfaces, each once
	mode     plan.Mode
	interval time.Duration
	duration time.Duration
	count    int // of intervals; 0 means no limit
	output   string
	pinned   bool
	bpffs    string
}

// parse reads the command line without the program's name. Flags can also follow names, as in xdp1. The error wraps
// errUsage, or is flag.ErrHelp.
func parse(args []string) (options, error) {
	o := options{mode: plan.Auto}
	var generic, native bool
	flags := flagSet(&o, &generic, &native)
	for len(args) > 0 {
		before := args
		if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
			return options{}, err
		} else if err != nil {
			return options{}, fmt.Errorf("%w: %w", errUsage, err)
		}
		args = flags.Args()
		if read := len(before) - len(args); read > 0 && before[read-1] == "--" {
			o.names = append(o.names, args...)
			break
		}
		if len(args) > 0 {
			o.names = append(o.names, args[0])
			args = args[1:]
		}
	}
	switch {
	case generic && native:
		return options{}, fmt.Errorf("%w: -S and -N exclude each other", errUsage)
	case generic:
		o.mode = plan.Generic
	case native:
		o.mode = plan.Native
	}
	if invalid := o.invalid(); invalid != "" {
		return options{}, fmt.Errorf("%w: %s", errUsage, invalid)
	}
	return o, nil
}

// invalid returns why the options are invalid, or "" if they are valid.
func (o options) invalid() string {
	sorted := slices.Sorted(slices.Values(o.names))
	for i, name := range sorted {
		if i > 0 && name == sorted[i-1] {
			return fmt.Sprintf("interface %q is given twice", name)
		}
	}
	switch {
	case slices.Contains(o.names, ""):
		return "an interface name is empty"
	case len(o.names) == 0 && !o.pinned:
		return "an interface name is required"
	case o.pinned && o.mode != plan.Auto:
		return "-S and -N cannot be used with --pinned, which attaches nothing"
	case o.output != outputTable && o.output != outputJSON:
		return fmt.Sprintf("--output is %q, must be table or json", o.output)
	case o.interval < minInterval:
		return fmt.Sprintf("--interval is %v, must be at least %v", o.interval, minInterval)
	case o.duration < 0:
		return fmt.Sprintf("--duration is %v, must not be negative", o.duration)
	case o.count < 0:
		return fmt.Sprintf("--count is %d, must not be negative", o.count)
	default:
		return ""
	}
}

func flagSet(o *options, generic, native *bool) *flag.FlagSet {
	flags := flag.NewFlagSet("xdpcount", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main prints the error in one line
	flags.BoolVar(generic, "S", false, "Attach in generic mode (SKB), which every interface supports.")
	flags.BoolVar(native, "N", false, "Attach in native mode, in the driver. It is an error if the driver does not support it. Default: native if supported, otherwise generic.")
	flags.DurationVar(&o.interval, "interval", 2*time.Second, "The `duration` of an interval.")
	flags.StringVar(&o.output, "output", outputTable, "Output `format`: table, or json (one object per line and interval).")
	flags.IntVar(&o.count, "count", 0, "Exit after `N` intervals. 0 means no limit.")
	flags.DurationVar(&o.duration, "duration", 0, "Exit after this `duration`. 0 means no limit.")
	flags.BoolVar(&o.pinned, "pinned", false, "Attach nothing, and read the counts of an xdp-operator agent. Without IFACE, read those of all interfaces.")
	flags.StringVar(&o.bpffs, "bpffs", "/sys/fs/bpf", "The `path` of the BPF file system in which the agent has pinned its maps, for --pinned.")
	return flags
}

// usage returns the text of --help.
func usage() string {
	var b strings.Builder
	b.WriteString("Usage: xdpcount [-S|-N] [flags] IFACE...\n       xdpcount --pinned [flags] [IFACE...]\n\n")
	flags := flagSet(&options{}, new(bool), new(bool))
	flags.SetOutput(&b)
	flags.PrintDefaults()
	return b.String()
}
