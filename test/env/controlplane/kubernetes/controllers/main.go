// SPDX-License-Identifier: Apache-2.0

// Command controllers is kube-controller-manager. The demo does not need it, so it is a binary of its own.
package main

import (
	"github.com/spf13/cobra"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"

	"github.com/xdp-operator/xdp-operator/test/env/controlplane/kubernetes/command"
)

func main() {
	command.Run(map[string]func() *cobra.Command{"kube-controller-manager": controllermanager.NewControllerManagerCommand})
}
