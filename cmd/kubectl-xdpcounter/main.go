// SPDX-License-Identifier: Apache-2.0

// Command kubectl-xdpcounter is a kubectl plugin. kubectl xdpcounter top shows the counts of XDPCounters live. kubectl
// xdpcounter why explains why an XDPCounter is not Ready. docs/kubectl-xdpcounter.md describes flags, output and exit
// statuses.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/xdp-operator/xdp-operator/cmd/internal/clock"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal terminates the process immediately.
	context.AfterFunc(ctx, stop)
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	err := newCommand(streams).ExecuteContext(ctx)
	if err != nil && !errors.Is(err, errNotReady) { // the output of why already shows it
		fmt.Fprintln(os.Stderr, "kubectl xdpcounter: "+statuses.Line(err))
	}
	os.Exit(statuses.Status(err))
}

// newCommand returns the root command.
func newCommand(streams genericiooptions.IOStreams) *cobra.Command {
	flags := genericclioptions.NewConfigFlags(true)
	flags.Namespace = nil // both kinds are cluster-scoped
	connect := func() (*client, error) { return newClient(flags, clock.System()) }
	root := &cobra.Command{
		Use:     "kubectl-xdpcounter",
		Short:   "Show the counts of XDPCounters, and why an XDPCounter is not Ready",
		Version: version,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: unknown command %q", errUsage, args[0])
			}
			return nil
		},
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl xdpcounter"},
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.DisableDefaultCmd = true // kubectl has this command, and runs kubectl_complete-xdpcounter
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	flags.AddFlags(root.PersistentFlags())
	complete(root, "context", contexts(flags))
	root.AddCommand(
		newTop(connect, streams),
		newWhy(connect, streams),
	)
	return root
}
