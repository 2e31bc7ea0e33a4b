// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/cmd/internal/display"
)

func newWhy(connect func() (*client, error), streams genericiooptions.IOStreams) *cobra.Command {
	return &cobra.Command{
		Use:   "why NAME",
		Short: "Show why an XDPCounter is not Ready, and what to do",
		Long: `Show why an XDPCounter is not Ready: a tree of the nodes and interfaces that have failures, and what to do about
each reason. It also lists the features of interfaces that are switched off while they are counted. The exit status is 0 if the XDPCounter is Ready, and 4 if it is not.`,
		Example: `  kubectl xdpcounter why workers`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%w: exactly one NAME is required", errUsage)
			}
			return nil
		},
		ValidArgsFunction: counterNames(connect),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			found, err := c.counters(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			states, err := c.nodeStates(cmd.Context())
			if err != nil {
				return err
			}
			d := diagnose(&found[0], states, c.clock.Now())
			namespace := ""
			if d.needsNamespace() {
				namespace = c.agentNamespace(cmd.Context())
			}
			text := strings.Join(d.lines(&found[0], namespace, columnsOf(streams.Out)), "\n") + "\n"
			if _, err := io.WriteString(streams.Out, text); err != nil {
				return fmt.Errorf("print: %w", err)
			}
			if !d.ready {
				return errNotReady
			}
			return nil
		},
	}
}

// lines returns the tree, what is switched off and what to do, in lines of at most the number of columns. namespace is that of the agents'
// pods, "" if it is not known.
func (d diagnosis) lines(c *v1alpha1.XDPCounter, namespace string, columns int) []string {
	lines := d.tree.lines(columns)
	if d.off != nil {
		lines = append(append(lines, ""), d.off.lines(columns)...)
	}
	if todo := d.whatToDo(c, namespace); todo != nil {
		lines = append(append(lines, ""), todo.lines(columns)...)
	}
	return lines
}

// columnsOf returns the width of the terminal, or 0 if the output is not a terminal.
func columnsOf(out io.Writer) int {
	file, ok := out.(*os.File)
	if !ok {
		return 0
	}
	size, _ := display.Terminal(file)
	return size.Columns
}
