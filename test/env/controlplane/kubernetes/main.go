// SPDX-License-Identifier: Apache-2.0

// Command kubernetes is kube-apiserver and kubectl in one binary. The demo needs no other programs of Kubernetes. Those of the
// commands controllers and node are binaries of their own, so that they are compiled only when needed.
package main

import (
	"github.com/spf13/cobra"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"

	"github.com/xdp-operator/xdp-operator/test/env/controlplane/kubernetes/command"
)

func main() {
	command.Run(map[string]func() *cobra.Command{
		"kube-apiserver": apiserver.NewAPIServerCommand,
		"kubectl":        kubectl.NewDefaultKubectlCommand,
	})
}
