// SPDX-License-Identifier: Apache-2.0

// Command controlplane prints the path of a directory that holds etcd, kube-apiserver, kube-controller-manager and kubectl,
// building them if need be. Progress goes to standard error, so that the output can be used as it is:
//
//	KUBEBUILDER_ASSETS=$(go run ./hack/controlplane)
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/xdp-operator/xdp-operator/test/env/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := controlplane.Assets(ctx, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "get:", err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, dir)
}
