// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/xdp-operator/xdp-operator/cmd/internal/display"
)

const (
	outputTable = "table"
	outputJSON  = "json"
)

// minInterval is the minimum of --interval.
const minInterval = 100 * time.Millisecond

// top is one run of the command.
type top struct {
	name     string // of the counter; empty for all
	by       string
	sort     string
	output   string
	once     bool
	interval time.Duration

	client *client
	show   func(report) error
}

func newTop(connect func() (*client, error), streams genericiooptions.IOStreams) *cobra.Command {
	var t top
	c := &cobra.Command{
		Use:   "top [NAME]",
		Short: "Show the counts of XDPCounters live",
		Long: `Show packets and bits per second of one XDPCounter or of all XDPCounters, per protocol, family, node or interface.

Rates are computed from the last two reports of each node. With --once, the rates in the status are printed
immediately.`,
		Example: `  kubectl xdpcounter top                                   # one line per XDPCounter
  kubectl xdpcounter top workers                           # one line per protocol
  kubectl xdpcounter top workers --by node --sort total
  kubectl xdpcounter top workers --once -o json | jq '.counters[0].totals'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("%w: at most one NAME is allowed, unexpected argument %q", errUsage, args[1])
			}
			return nil
		},
		ValidArgsFunction: counterNames(connect),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if len(args) > 0 {
				t.name = args[0]
			}
			if err := t.complete(); err != nil {
				return err
			}
			if t.client, err = connect(); err != nil {
				return err
			}
			t.show = printer(t.output, streams)
			if t.once {
				return t.print(cmd.Context())
			}
			return t.run(cmd.Context())
		},
	}
	bys := []string{byProtocol, byFamily, byNode, byInterface}
	sorts, outputs := []string{sortRate, sortTotal}, []string{outputTable, outputJSON}
	flags := c.Flags()
	flags.StringVar(&t.by, "by", "", "Show one row per "+strings.Join(bys, ", ")+". Default: protocol if NAME is given, otherwise one row per XDPCounter.")
	flags.StringVar(&t.sort, "sort", sortRate, "Sort rows, and compute SHARE, by packets per second (rate) or by all packets counted (total).")
	flags.StringVarP(&t.output, "output", "o", outputTable, "Output format: table, or json (one object per line and interval).")
	flags.BoolVar(&t.once, "once", false, "Print once, with the rates in the status, and exit.")
	flags.DurationVar(&t.interval, "interval", 2*time.Second, "Time between two outputs. The data changes when nodes report, see spec.reportInterval.")
	for flag, values := range map[string][]string{"by": bys, "sort": sorts, "output": outputs} {
		complete(c, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return c
}

// complete validates the flags and sets the defaults that depend on other flags.
func (t *top) complete() error {
	switch t.by {
	case "":
		t.by = byProtocol
		if t.name == "" {
			t.by = byCounter
		}
	case byProtocol, byFamily, byNode, byInterface:
	default:
		return fmt.Errorf("%w: --by is %q, must be protocol, family, node or interface", errUsage, t.by)
	}
	switch {
	case t.sort != sortRate && t.sort != sortTotal:
		return fmt.Errorf("%w: --sort is %q, must be rate or total", errUsage, t.sort)
	case t.output != outputTable && t.output != outputJSON:
		return fmt.Errorf("%w: --output is %q, must be table or json", errUsage, t.output)
	case t.interval < minInterval:
		return fmt.Errorf("%w: --interval is %v, must be at least %v", errUsage, t.interval, minInterval)
	}
	return nil
}

// printer returns a function that prints reports to the output, which can be a terminal.
func printer(output string, streams genericiooptions.IOStreams) func(report) error {
	if output == outputJSON {
		return func(r report) error { return writeJSON(streams.Out, r) }
	}
	s := &display.Screen{Out: streams.Out, Size: func() (display.Size, bool) {
		file, ok := streams.Out.(*os.File)
		if !ok {
			return display.Size{}, false
		}
		return display.Terminal(file)
	}}
	return func(r report) error {
		return s.Print(func(bounds display.Size) []string { return render(r, bounds) })
	}
}

// print prints once, from the statuses.
func (t *top) print(ctx context.Context) error {
	var cache objectCache
	found, err := t.client.counters(ctx, t.name)
	if err != nil {
		return err
	}
	cache.setCounters(found)
	if t.by == byNode || t.by == byInterface {
		states, err := t.client.nodeStates(ctx)
		if err != nil {
			return err
		}
		cache.setNodes(states, t.client.clock.Now())
	}
	return t.show(cache.build(t.by, t.sort, false, t.client.clock.Now()))
}

// run watches both resources and prints once per interval, until ctx is done or the counter is deleted.
func (t *top) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var followers sync.WaitGroup
	defer followers.Wait()
	defer cancel()

	updates, failed := make(chan update), make(chan error, 2)
	notify := func(u update) {
		select {
		case updates <- u:
		case <-ctx.Done():
		}
	}
	follow := func(resource, name string) {
		followers.Go(func() {
			if err := t.client.follow(ctx, resource, name, notify); err != nil {
				failed <- err
			}
		})
	}
	follow(counterResource, t.name)
	follow(nodeStateResource, "")

	var cache objectCache
	rates := histories{}
	// The first output follows as soon as both resources are listed.
	ticker := time.NewTicker(t.interval)
	defer ticker.Stop()
	began := false
	for {
		due := false
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case u := <-updates:
			cache.add(u, t.client.clock.Now())
			if t.name != "" && cache.counters != nil && len(cache.counters) == 0 {
				if began {
					return fmt.Errorf("%w: %s was deleted", errNoCounter, t.name)
				}
				return t.client.noCounter(ctx, t.name)
			}
			due = !began && cache.synced()
		case <-ticker.C:
			due = began
		}
		if due {
			began = true
			r := cache.build(t.by, t.sort, true, t.client.clock.Now())
			rates.add(&r)
			if err := t.show(r); err != nil {
				return err
			}
		}
	}
}

// histories holds the packet rates that were printed, by row.
type histories map[[3]string][]float64

// add appends the rates of the report, and sets the history of its rows. Rows that are not in the report are deleted.
func (h histories) add(r *report) {
	seen := map[[3]string]bool{}
	put := func(x *row, counter string) {
		key := [3]string{counter, x.family, x.label()}
		seen[key] = true
		if x.rate != nil {
			h[key] = append(h[key], x.rate.Packets)
			h[key] = h[key][max(len(h[key])-longestHistory, 0):]
		}
		x.history = slices.Clone(h[key])
	}
	for i := range r.sections {
		s := &r.sections[i]
		put(&s.all, s.name)
		for j := range s.rows {
			put(&s.rows[j], s.name)
		}
	}
	for key := range h {
		if !seen[key] {
			delete(h, key)
		}
	}
}
