// SPDX-License-Identifier: Apache-2.0

// Command agent runs on every node. See package agent.
//
//	agent           counts packets as the node's XDPNodeState specifies; programs stay attached when it exits
//	agent cleanup   removes every program, link and map of xdp-operator from this node, without the API server
//	agent hold      waits for a signal, for a pod whose init container has done all the work
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/xdp-operator/xdp-operator/agent"
	"github.com/xdp-operator/xdp-operator/agent/datapath"
	"github.com/xdp-operator/xdp-operator/agent/links"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/cmd/internal/clock"
	"github.com/xdp-operator/xdp-operator/cmd/internal/exit"
	"github.com/xdp-operator/xdp-operator/cmd/internal/metrics"
)

// version is set by the linker.
var version = "dev"

// bootIDFile contains the kernel's random ID of this boot (random(4)).
const bootIDFile = "/proc/sys/kernel/random/boot_id"

type options struct {
	node         string
	bpffs        string
	probeAddress string
	metrics      metrics.Options
}

func main() {
	var o options
	flag.StringVar(&o.node, "node-name", os.Getenv("NODE_NAME"), "The `name` of the node. Default: $NODE_NAME.")
	flag.StringVar(&o.bpffs, "bpffs", "/sys/fs/bpf", "The `path` of the BPF file system in which programs and counts are pinned, so that counting continues without the agent.")
	flag.StringVar(&o.probeAddress, "health-probe-bind-address", ":8082", "The `address` that serves /healthz and /readyz. 0 disables them.")
	o.metrics.AddFlags(flag.CommandLine)
	logging := zap.Options{}
	logging.BindFlags(flag.CommandLine)
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "Usage: %s [flags] [cleanup|hold]\n", os.Args[0])
		flag.PrintDefaults()
	}
	flag.Parse()
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&logging)))

	if os.Getenv("GOGC") == "" {
		// Most of the resident memory is the executable itself. A small heap matters more than the CPU time of the collector.
		debug.SetGCPercent(25)
	}
	var err error
	switch flag.Arg(0) {
	case "":
		err = run(ctrl.SetupSignalHandler(), o)
	case "cleanup":
		err = cleanup(o.bpffs)
	case "hold":
		<-ctrl.SetupSignalHandler().Done()
	default:
		err = fmt.Errorf("unknown command %q: the commands are cleanup and hold", flag.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent: "+exit.Causes{}.Line(err))
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if o.node == "" {
		return errors.New("the name of the node is not set: use --node-name or $NODE_NAME")
	}
	boot, err := os.ReadFile(bootIDFile)
	if err != nil {
		return fmt.Errorf("read boot ID: %w", err)
	}
	bootID := string(bytes.TrimSpace(boot))
	dp, err := datapath.Open(o.bpffs, bootID)
	if err != nil {
		return fmt.Errorf("open the datapath: %w", err)
	}
	defer func() { err = errors.Join(err, dp.Close()) }()

	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	config.UserAgent = "xdp-operator-agent/" + version
	server, err := o.metrics.Server(metrics.Reviewed)
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                 scheme,
		MapperProvider:         agent.Mapper,
		Cache:                  agent.CacheOptions(o.node),
		Metrics:                server,
		HealthProbeBindAddress: o.probeAddress,
	})
	if err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	watcher, err := links.Links{}.Watch(ctx)
	if err != nil {
		return fmt.Errorf("watch interfaces: %w", err)
	}
	a := &agent.Agent{
		Client: mgr.GetClient(),
		Node:   o.node,
		Info: v1alpha1.AgentInfo{
			Version:       version,
			KernelRelease: kernelRelease(),
			BootID:        bootID,
			ProgramTag:    dp.ProgramTag(),
		},
		Datapath: dp,
		Links:    watcher,
		Clock:    clock.System(),
	}
	if err := a.SetupWithManager(mgr, watcher.Changed()); err != nil {
		return fmt.Errorf("set up the agent's controller: %w", err)
	}
	collector := &agent.Collector{Agent: a, Programs: dp.Programs, Resyncs: watcher.Resyncs}
	if err := ctrlmetrics.Registry.Register(collector); err != nil {
		return fmt.Errorf("set up metrics: %w", err)
	}
	if err := errors.Join(mgr.AddHealthzCheck("passes", a.Alive), mgr.AddReadyzCheck("first-pass", a.Ready)); err != nil {
		return fmt.Errorf("add health checks: %w", err)
	}
	ctrl.Log.Info("Starting", "version", version, "node", o.node)
	return mgr.Start(ctx)
}

// cleanup removes everything that agents of any version have pinned in the BPF file system, except what belongs to another network
// namespace in which programs are attached: to another node that uses the same BPF file system.
func cleanup(bpffs string) error {
	dp, err := datapath.Open(bpffs, "")
	if err != nil {
		return fmt.Errorf("open the datapath: %w", err)
	}
	others, err := dp.Cleanup()
	if errors.Is(err, plan.ErrBPFFSNotMounted) {
		err = nil // then nothing is pinned, and the kernel removes what is not pinned when the agent exits
	}
	for _, folder := range others {
		fmt.Fprintf(os.Stderr, "agent: %s is left, because programs are attached in the network namespace to which it belongs\n", folder)
	}
	return errors.Join(err, dp.Close())
}

// kernelRelease returns what uname -r prints.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
