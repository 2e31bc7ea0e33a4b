// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/xdp-operator/xdp-operator/cmd/internal/clock"
	"github.com/xdp-operator/xdp-operator/controllers"
	"github.com/xdp-operator/xdp-operator/controllers/uninstall"
	"github.com/xdp-operator/xdp-operator/internal/format"
)

const (
	// leaseTimeout is how long to wait for the lease. If the controller has crashed, its lease expires after 15 s. If the
	// controller cannot be stopped, its lease is taken away after takeLeaseAfter, and is free 15 s later.
	leaseTimeout   = 60 * time.Second
	takeLeaseAfter = 20 * time.Second
	// leaseRetry is the time between two attempts to acquire the lease.
	leaseRetry = 300 * time.Millisecond
	// namespaceFile contains the namespace of a pod.
	namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
)

// namespace returns the namespace of the controller. It is empty outside a cluster if the flag is not set.
func (o options) namespace() string {
	if o.leaderNamespace != "" {
		return o.leaderNamespace
	}
	content, err := os.ReadFile(namespaceFile)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(content))
}

// direct returns a client without a cache.
func direct(config *rest.Config, scheme *runtime.Scheme) (client.Client, error) {
	live, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("create a client: %w", err)
	}
	return live, nil
}

// uninstallAll stops the controller, takes its place, and waits until all agents have detached. It returns no error if
// agents do not answer, because an unreachable node must not block the removal of the operator.
func uninstallAll(ctx context.Context, o options) error {
	config, scheme, err := connect()
	if err != nil {
		return err
	}
	// This runs once for all nodes, so only the API server limits its rate.
	config.QPS, config.Burst = 200, 400
	live, err := direct(config, scheme)
	if err != nil {
		return err
	}
	before := uninstall.Controller{Client: live, Namespace: o.namespace(), Name: leaseName}
	if err := before.End(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout+2*o.timeout)
	defer cancel()
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         controllers.CacheOptions(),
		Metrics:                       metricsserver.Options{BindAddress: "0"},
		LeaderElection:                o.leaderElect,
		LeaderElectionID:              leaseName,
		LeaderElectionNamespace:       o.leaderNamespace,
		RetryPeriod:                   new(leaseRetry),
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	// Events are discarded, because the status of each XDPCounter says that the operator was uninstalled.
	task := &leading{uninstaller: o.reconcilers(mgr, &events.FakeRecorder{}).uninstaller(o.timeout), done: cancel}
	if err := mgr.Add(task); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	// If the kubelet of the controller is unreachable, the Deployment is scaled down but the controller continues to run.
	task.takeLease = time.AfterFunc(takeLeaseAfter, func() {
		if err := before.TakeLease(ctx, clock.System().Now()); err != nil {
			ctrl.Log.Error(err, "Cannot take the lease away")
		}
	})
	defer task.takeLease.Stop()
	if err := mgr.Start(ctx); err != nil {
		return err
	}
	switch {
	case !task.ran:
		return errors.New("another controller is still active: it holds the lease " + leaseName)
	case task.err != nil:
		return task.err
	}
	if len(task.attached) > 0 {
		fmt.Fprintf(os.Stderr, "%s not reported that all interfaces are detached: %s\n",
			format.Count(len(task.attached), "node has", "nodes have"), format.FirstFew(task.attached))
	}
	return before.DeleteLease(context.WithoutCancel(ctx))
}

// leading runs an Uninstaller after the lease is acquired, and then stops the manager.
type leading struct {
	uninstaller *uninstall.Uninstaller
	takeLease   *time.Timer
	done        func()

	ran      bool
	attached []string // nodes that have not reported that everything is detached
	err      error
}

func (l *leading) Start(ctx context.Context) error {
	defer l.done()
	l.takeLease.Stop()
	l.ran = true
	l.attached, l.err = l.uninstaller.Run(ctrl.LoggerInto(ctx, ctrl.Log))
	return nil // the caller returns l.err
}

// awaitSweep returns no error after a timeout, so that the rest of the operator is removed nevertheless.
func awaitSweep(ctx context.Context, o options) error {
	config, scheme, err := connect()
	if err != nil {
		return err
	}
	live, err := direct(config, scheme)
	if err != nil {
		return err
	}
	if err := uninstall.AwaitSweep(ctx, live, o.namespace(), o.timeout); err != nil {
		fmt.Fprintln(os.Stderr, "Not all nodes are cleaned up:", err)
	}
	return nil
}

func check(ctx context.Context, o options) error {
	config, scheme, err := connect()
	if err != nil {
		return err
	}
	live, err := direct(config, scheme)
	if err != nil {
		return err
	}
	return uninstall.AwaitWorking(ctx, live, o.namespace(), o.timeout)
}
