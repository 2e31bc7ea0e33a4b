// SPDX-License-Identifier: Apache-2.0

// Package command makes one binary of several Kubernetes programs. The shared code is linked once.
package command

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // for --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client and work queue metrics, as upstream's mains
	_ "k8s.io/component-base/metrics/prometheus/version"
)

// Run runs the command with the name that the binary is called by, and exits.
func Run(commands map[string]func() *cobra.Command) {
	name := filepath.Base(os.Args[0])
	newCommand, ok := commands[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "%s: call this binary as one of %s\n", name,
			strings.Join(slices.Sorted(maps.Keys(commands)), ", "))
		os.Exit(2)
	}
	os.Exit(cli.Run(newCommand()))
}
