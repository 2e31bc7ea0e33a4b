// SPDX-License-Identifier: Apache-2.0

// Command controller runs once per cluster. See package controllers.
//
//	controller               runs the controllers while it holds the lease
//	controller uninstall     stops the controller, waits until all agents have saved their counts and detached, adds the
//	                         counts to the totals, and deletes the node states
//	controller await-sweep   waits until every node is cleaned up (config/sweep)
//	controller check         waits until the operator works on every node
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/cmd/internal/clock"
	"github.com/xdp-operator/xdp-operator/cmd/internal/metrics"
	"github.com/xdp-operator/xdp-operator/controllers"
	"github.com/xdp-operator/xdp-operator/controllers/uninstall"
)

// version is set by the linker.
var version = "dev"

func main() {
	var o options
	o.addFlags(flag.CommandLine)
	logging := zap.Options{}
	logging.BindFlags(flag.CommandLine)
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "Usage: %s [flags] [uninstall|await-sweep|check]\n", os.Args[0])
		flag.PrintDefaults()
	}
	flag.Parse()
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&logging)))
	commands := map[string]func(context.Context, options) error{
		"": run, "uninstall": uninstallAll, "await-sweep": awaitSweep, "check": check,
	}
	command, ok := commands[flag.Arg(0)]
	if !ok {
		fmt.Fprintf(os.Stderr, "controller: unknown command %q\n", flag.Arg(0))
		os.Exit(2)
	}
	if err := command(ctrl.SetupSignalHandler(), o); err != nil {
		fmt.Fprintln(os.Stderr, "controller:", err)
		os.Exit(1)
	}
}

type options struct {
	metrics         metrics.Options
	probeAddress    string
	leaderElect     bool
	leaderNamespace string
	statusInterval  time.Duration
	budget          controllers.Budget
	specWriters     int
	timeout         time.Duration
}

func (o *options) addFlags(flags *flag.FlagSet) {
	o.metrics.AddFlags(flags)
	flags.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "The `address` that serves /healthz and /readyz. 0 disables them.")
	flags.BoolVar(&o.leaderElect, "leader-elect", true, "Run the controllers only while holding a lease, so that only one replica is active.")
	flags.StringVar(&o.leaderNamespace, "leader-election-namespace", "", "The `namespace` of the lease. Default: the namespace of the pod.")
	flags.DurationVar(&o.statusInterval, "status-interval", 5*time.Second, "The minimum time between two writes of an XDPCounter's status if only its totals have changed.")
	flags.Float64Var(&o.budget.WritesPerSecond, "report-writes-per-second", 50, "The maximum number of reports that all agents together write per `second`. Report intervals become longer if necessary. 0 means no limit.")
	flags.Float64Var(&o.budget.BytesPerSecond, "report-bytes-per-second", 200_000, "The maximum number of bytes in reports that all agents together write per `second`. Report intervals become longer if necessary. 0 means no limit.")
	flags.IntVar(&o.specWriters, "spec-writers", 16, "The number of XDPNodeState specs that are written at the same time. A larger number distributes a change to a large cluster sooner, and takes more CPU time of the API server. See docs/scale.md.")
	flags.DurationVar(&o.timeout, "timeout", time.Minute, "How long uninstall waits for the agents and then again for the node states, and how long await-sweep and check wait in total.")
}

// connect returns the client configuration for the API server, and the scheme.
func connect() (*rest.Config, *runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, nil, err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("find the API server: %w", err)
	}
	config.UserAgent = "xdp-operator-controller/" + version
	return config, scheme, nil
}

func run(ctx context.Context, o options) error {
	config, scheme, err := connect()
	if err != nil {
		return err
	}
	server, err := o.metrics.Server(filters.WithAuthenticationAndAuthorization)
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                  scheme,
		Cache:                   controllers.CacheOptions(),
		Metrics:                 server,
		HealthProbeBindAddress:  o.probeAddress,
		LeaderElection:          o.leaderElect,
		LeaderElectionID:        leaseName,
		LeaderElectionNamespace: o.leaderNamespace,
		// The process exits right after it has released the lease, so the next leader does not have to wait until it expires.
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	r := o.reconcilers(mgr, mgr.GetEventRecorder("xdp-operator"))
	if err := r.states.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the node state controller: %w", err)
	}
	if err := r.counters.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the counter controller: %w", err)
	}
	if err := ctrlmetrics.Registry.Register(&controllers.Collector{Reader: mgr.GetClient(), States: r.states, Counters: r.counters, Clock: clock.System()}); err != nil {
		return fmt.Errorf("set up metrics: %w", err)
	}
	if err := mgr.Add(&uninstall.NamespaceWatcher{Live: mgr.GetAPIReader(), Namespace: o.namespace(), Uninstaller: r.uninstaller(uninstall.NamespaceGrace)}); err != nil {
		return fmt.Errorf("set up the namespace watcher: %w", err)
	}
	if err := addChecks(mgr); err != nil {
		return err
	}
	ctrl.Log.Info("Starting", "version", version)
	return mgr.Start(ctx)
}

// leaseName is the name of the lease that the active controller holds, and of the controller's Deployment.
const leaseName = "xdp-operator-controller"

// reconcilers are the two reconcilers and their client.
type reconcilers struct {
	client   *uninstall.DrainClient
	states   *controllers.NodeStateReconciler
	counters *controllers.XDPCounterReconciler
}

func (o options) reconcilers(mgr ctrl.Manager, recorder events.EventRecorder) reconcilers {
	drain := &uninstall.DrainClient{Client: mgr.GetClient()}
	states := &controllers.NodeStateReconciler{
		Client: drain,
		Live:   mgr.GetAPIReader(),
		Clock:  clock.System(),
		Budget: o.budget,

		SpecWriters: o.specWriters,
	}
	return reconcilers{
		client: drain,
		states: states,
		counters: &controllers.XDPCounterReconciler{
			Client:         drain,
			Live:           mgr.GetAPIReader(),
			Clock:          clock.System(),
			Events:         recorder,
			StatusInterval: o.statusInterval,
			Rescuing:       states.Rescuing,
		},
	}
}

func (r reconcilers) uninstaller(timeout time.Duration) *uninstall.Uninstaller {
	return &uninstall.Uninstaller{Client: r.client, NodeStates: r.states, Counters: r.counters, Timeout: timeout}
}

// addChecks adds the probes. A process is alive if it answers, because it exits by itself when it loses its lease. It is
// ready when its caches are synced, so that it can become the leader at once.
func addChecks(mgr ctrl.Manager) error {
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("add health check: %w", err)
	}
	return mgr.AddReadyzCheck("caches", func(req *http.Request) error {
		var errs []error // not returned early, so that a standby, in which nothing else uses the caches, starts all of them at once
		for _, object := range []client.Object{&corev1.Node{}, &v1alpha1.XDPCounter{}, &v1alpha1.XDPNodeState{}} {
			informer, err := mgr.GetCache().GetInformer(req.Context(), object, cache.BlockUntilSynced(false))
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("watch %T: %w", object, err))
			case !informer.HasSynced():
				errs = append(errs, fmt.Errorf("the cache of %T is not synced yet", object))
			}
		}
		return errors.Join(errs...)
	})
}
