// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
)

// completionTimeout limits how long the shell waits for names.
const completionTimeout = 3 * time.Second

type completer = func(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective)

// complete registers the completion of the flag's values. An error means that the command has no such flag.
func complete(c *cobra.Command, flag string, values completer) {
	if err := c.RegisterFlagCompletionFunc(flag, values); err != nil {
		panic(err)
	}
}

// counterNames completes the name of one XDPCounter.
func counterNames(connect func() (*client, error)) completer {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		names, err := c.names(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return withPrefix(prefix, names), cobra.ShellCompDirectiveNoFileComp
	}
}

func withPrefix(prefix string, names []string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, prefix) })
}

// contexts completes the name of a context of the kubeconfig.
func contexts(flags *genericclioptions.ConfigFlags) completer {
	return func(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		config, err := flags.ToRawKubeConfigLoader().RawConfig()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return withPrefix(prefix, slices.Sorted(maps.Keys(config.Contexts))), cobra.ShellCompDirectiveNoFileComp
	}
}
