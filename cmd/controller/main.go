// Command controller is the cluster's half of xdp-operator: see package controllers.
//
//	controller               works while it holds the lease
//	controller uninstall     ends the controller, lets all agents save their counts and detach, adds these to the totals,
//	                         and deletes the node states
//	controller await-sweep   waits until every node is swept (config/sweep)
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
	flags.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "The `address` that serves /healthz and /readyz. 0 serves none.")
	flags.BoolVar(&o.leaderElect, "leader-elect", true, "Work only while holding the lease, so that two replicas never work at once.")
	flags.StringVar(&o.leaderNamespace, "leader-election-namespace", "", "The `namespace` of the lease. Default: the pod's own.")
	flags.DurationVar(&o.statusInterval, "status-interval", 5*time.Second, "How often an XDPCounter's status may be written for the mere growth of its totals.")
	flags.Float64Var(&o.budget.WritesPerSecond, "report-writes-per-second", 50, "How many reports all agents together may write per `second`; their intervals are stretched to it. 0: no bound.")
	flags.Float64Var(&o.budget.BytesPerSecond, "report-bytes-per-second", 200_000, "How many bytes of reports all agents together may write per `second`, likewise. 0: no bound.")
	flags.IntVar(&o.specWriters, "spec-writers", 16, "How many XDPNodeState specs are written at the same time. More tell a large cluster of a change sooner, and take more CPU of the API server: docs/scale.md.")
	flags.DurationVar(&o.timeout, "timeout", time.Minute, "How long uninstall waits for the agents and then for the node states, await-sweep for the nodes, and check for all.")
}

// connect returns how to reach the API server, and the kinds there are.
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
		// The process ends when it is told to, so the next leader need not wait for the lease to run out.
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
	if err := ctrlmetrics.Registry.Register(&controllers.Collector{Reader: mgr.GetClient(), States: r.states, Clock: clock.System()}); err != nil {
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

// leaseName is the name of the lease that the one who works holds, and of the controller's Deployment.
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

// addChecks adds the probes. Alive is a process that answers: one that loses its lease ends by itself. Ready is one
// whose caches are filled from the API server, so that it could lead at once.
func addChecks(mgr ctrl.Manager) error {
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("add health check: %w", err)
	}
	return mgr.AddReadyzCheck("caches", func(req *http.Request) error {
		var errs []error // a standby fills all of them at once, as nothing else asks for them
		for _, object := range []client.Object{&corev1.Node{}, &v1alpha1.XDPCounter{}, &v1alpha1.XDPNodeState{}} {
			informer, err := mgr.GetCache().GetInformer(req.Context(), object, cache.BlockUntilSynced(false))
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("watch %T: %w", object, err))
			case !informer.HasSynced():
				errs = append(errs, fmt.Errorf("the cache of %T is not filled yet", object))
			}
		}
		return errors.Join(errs...)
	})
}
