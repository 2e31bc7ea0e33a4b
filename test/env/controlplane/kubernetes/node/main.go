// SPDX-License-Identifier: Apache-2.0

// Command node is the programs that only a cluster of real nodes needs, in one binary: kubelet, kube-proxy and
// kube-scheduler.
package main

import (
	"context"

	"github.com/spf13/cobra"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"github.com/xdp-operator/xdp-operator/test/env/controlplane/kubernetes/command"
)

func main() {
	command.Run(map[string]func() *cobra.Command{
		"kube-proxy":     proxy.NewProxyCommand,
		"kube-scheduler": func() *cobra.Command { return scheduler.NewSchedulerCommand() },
		"kubelet":        func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	})
}
