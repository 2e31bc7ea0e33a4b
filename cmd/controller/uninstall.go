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
	// leaseTime is how long it may take until the lease is had: that of a controller that has died after 15 s, that of one
	// that cannot be ended 15 s after it was taken away, which is done after leasePatience.
	leaseTime     = 60 * time.Second
	leasePatience = 20 * time.Second
	// leaseRetry is how often it is asked for.
	leaseRetry = 300 * time.Millisecond
	// namespaceFile holds the namespace of a pod.
	namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
)

// namespace returns that of the controller, empty if it runs outside a cluster and is told none.
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
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return live, nil
}

// uninstallAll ends the controller, takes its place, and lets all agents detach. It returns no error for agents that do
// not answer: a node that is away must not keep the rest of the operator.
func uninstallAll(ctx context.Context, o options) error {
	config, scheme, err := connect()
	if err != nil {
		return err
	}
	// One run for all nodes: it may be as fast as the API server lets it.
	config.QPS, config.Burst = 200, 400
	live, err := direct(config, scheme)
	if err != nil {
		return err
	}
	before := uninstall.Controller{Client: live, Namespace: o.namespace(), Name: leaseName}
	if err := before.End(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, leaseTime+2*o.timeout)
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
	// Nobody is left to whom events would tell anything: the statuses do.
	task := &leading{uninstaller: o.reconcilers(mgr, &events.FakeRecorder{}).uninstaller(o.timeout), done: cancel}
	if err := mgr.Add(task); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	// A controller whose kubelet is away is scaled down and works on.
	task.patience = time.AfterFunc(leasePatience, func() {
		if err := before.TakeLease(ctx, clock.System().Now()); err != nil {
			ctrl.Log.Error(err, "Cannot take the lease away")
		}
	})
	defer task.patience.Stop()
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

// leading runs an Uninstaller once it holds the lease, and ends the manager then.
type leading struct {
	uninstaller *uninstall.Uninstaller
	patience    *time.Timer
	done        func()

	ran      bool
	attached []string // nodes that have not reported that everything is detached
	err      error
}

func (l *leading) Start(ctx context.Context) error {
	defer l.done()
	l.patience.Stop()
	l.ran = true
	l.attached, l.err = l.uninstaller.Run(ctrl.LoggerInto(ctx, ctrl.Log))
	return nil // told by the caller
}

// awaitSweep returns no error when the time is over: the rest of the operator is to go all the same.
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
		fmt.Fprintln(os.Stderr, "Not all nodes are swept:", err)
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
