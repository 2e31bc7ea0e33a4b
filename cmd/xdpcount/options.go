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

// errUsage is a command line that says nothing that can be done.
var errUsage = errors.New("usage")

const (
	outputTable = "table"
	outputJSON  = "json"
)

// shortest is the shortest interval: below it the printing would be what is measured.
const shortest = 10 * time.Millisecond

type options struct {
	names    []string // of interfaces, each once
	mode     plan.Mode
	interval time.Duration
	duration time.Duration // 0: without end
	count    int           // of intervals; 0: without end
	output   string
	pinned   bool
	bpffs    string
}

// parse reads the command line without the program's name. Flags may also follow names, as with xdp1. The error wraps
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
	if wrong := o.wrong(); wrong != "" {
		return options{}, fmt.Errorf("%w: %s", errUsage, wrong)
	}
	return o, nil
}

// wrong says what cannot be done, "" if all can.
func (o options) wrong() string {
	sorted := slices.Sorted(slices.Values(o.names))
	for i, name := range sorted {
		if i > 0 && name == sorted[i-1] {
			return fmt.Sprintf("interface %q is named twice", name)
		}
	}
	switch {
	case slices.Contains(o.names, ""):
		return "an interface name is empty"
	case len(o.names) == 0 && !o.pinned:
		return "name an interface"
	case o.pinned && o.mode != plan.Auto:
		return "-S and -N say how to attach, and --pinned attaches nothing"
	case o.output != outputTable && o.output != outputJSON:
		return fmt.Sprintf("--output is %q, must be table or json", o.output)
	case o.interval < shortest:
		return fmt.Sprintf("--interval is %v, must be at least %v", o.interval, shortest)
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
	flags.SetOutput(io.Discard) // an error is told in one line
	flags.BoolVar(generic, "S", false, "Attach in generic mode (SKB), which every interface has.")
	flags.BoolVar(native, "N", false, "Attach in native mode, in the driver, or not at all. Default: native, else generic.")
	flags.DurationVar(&o.interval, "interval", 2*time.Second, "The `length` of each interval.")
	flags.StringVar(&o.output, "output", outputTable, "How to print: `table`, or json for one object per interval and line.")
	flags.IntVar(&o.count, "count", 0, "End after `N` intervals. 0 goes on until a signal comes.")
	flags.DurationVar(&o.duration, "duration", 0, "End after this `time`. 0 goes on until a signal comes.")
	flags.BoolVar(&o.pinned, "pinned", false, "Attach nothing, and read what an agent of xdp-operator counts; of all interfaces if none is named.")
	flags.StringVar(&o.bpffs, "bpffs", "/sys/fs/bpf", "The `path` of the BPF file system in which the agent pins, for --pinned.")
	return flags
}

// usage is the text of --help.
func usage() string {
	var b strings.Builder
	b.WriteString("Usage: xdpcount [-S|-N] [flags] IFACE...\n       xdpcount --pinned [flags] [IFACE...]\n\n")
	flags := flagSet(&options{}, new(bool), new(bool))
	flags.SetOutput(&b)
	flags.PrintDefaults()
	return b.String()
}
