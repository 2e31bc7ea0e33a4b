// Command controller is the cluster's half of xdp-operator: see package controllers.
package main

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/controllers"
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
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "controller:", err)
		os.Exit(1)
	}
}

type options struct {
	metricsAddress  string
	probeAddress    string
	leaderElect     bool
	leaderNamespace string
	statusInterval  time.Duration
	writeBudget     float64
}

func (o *options) addFlags(flags *flag.FlagSet) {
	flags.StringVar(&o.metricsAddress, "metrics-bind-address", "0", "The `address` that serves metrics, for example :8080. 0 serves none.")
	flags.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "The `address` that serves /healthz and /readyz. 0 serves none.")
	flags.BoolVar(&o.leaderElect, "leader-elect", true, "Work only while holding the lease, so that two replicas never work at once.")
	flags.StringVar(&o.leaderNamespace, "leader-election-namespace", "", "The `namespace` of the lease. Default: the pod's own.")
	flags.DurationVar(&o.statusInterval, "status-interval", 5*time.Second, "How often an XDPCounter's status may be written for the mere growth of its totals.")
	flags.Float64Var(&o.writeBudget, "report-writes-per-second", 50, "How many reports all agents together may write per `second`; their intervals are stretched to it. 0: no bound.")
}

func run(o options) error {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	config.UserAgent = "xdp-operator-controller/" + version
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                  scheme,
		Cache:                   controllers.CacheOptions(),
		Metrics:                 metricsserver.Options{BindAddress: o.metricsAddress},
		HealthProbeBindAddress:  o.probeAddress,
		LeaderElection:          o.leaderElect,
		LeaderElectionID:        "xdp-operator-controller",
		LeaderElectionNamespace: o.leaderNamespace,
		// The process ends when it is told to, so the next leader need not wait for the lease to run out.
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	if err := (&controllers.NodeStateReconciler{
		Client: mgr.GetClient(),
		Live:   mgr.GetAPIReader(),
		Budget: controllers.Budget{WritesPerSecond: o.writeBudget},
	}).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the node state controller: %w", err)
	}
	if err := (&controllers.XDPCounterReconciler{
		Client:         mgr.GetClient(),
		Live:           mgr.GetAPIReader(),
		Clock:          systemClock(),
		Events:         mgr.GetEventRecorder("xdp-operator"),
		StatusInterval: o.statusInterval,
	}).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the counter controller: %w", err)
	}
	if err := addChecks(mgr); err != nil {
		return err
	}
	ctrl.Log.Info("Starting", "version", version)
	return mgr.Start(ctrl.SetupSignalHandler())
}

// addChecks adds the probes. Alive is a process that answers: one that loses its lease ends by itself. Ready is one
// whose caches are filled from the API server, so that it could lead at once.
func addChecks(mgr ctrl.Manager) error {
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("add health check: %w", err)
	}
	return mgr.AddReadyzCheck("caches", func(req *http.Request) error {
		for _, object := range []client.Object{&corev1.Node{}, &v1alpha1.XDPCounter{}, &v1alpha1.XDPNodeState{}} {
			informer, err := mgr.GetCache().GetInformer(req.Context(), object, cache.BlockUntilSynced(false))
			if err != nil {
				return fmt.Errorf("watch %T: %w", object, err)
			}
			if !informer.HasSynced() {
				return fmt.Errorf("the cache of %T is not filled yet", object)
			}
		}
		return nil
	})
}
