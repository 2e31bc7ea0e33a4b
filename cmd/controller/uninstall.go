package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/cmd/internal/clock"
	"github.com/xdp-operator/xdp-operator/controllers"
	"github.com/xdp-operator/xdp-operator/controllers/uninstall"
)

const (
	// leaseTime is how long it may take until the lease is had: that of a controller that has died after 15 s, that of one
	// that cannot be ended 15 s after it was taken away.
	leaseTime     = 60 * time.Second
	leasePatience = 20 * time.Second
	// namespaceGrace is for a namespace that is being deleted: Kubernetes begins with its contents after five seconds,
	// and gives its pods thirty more.
	namespaceGrace = 20 * time.Second
	// namespaceLook is how often the controller looks whether its namespace is being deleted.
	namespaceLook = time.Second
	// progress is how often what is waited for is looked at.
	progress = 500 * time.Millisecond
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

// uninstallAll ends the controller, takes its place, and lets all agents detach. It returns no error for agents that do
// not answer: a node that is away must not keep the rest of the operator.
func uninstallAll(ctx context.Context, o options) error {
	config, scheme, err := connect()
	if err != nil {
		return err
	}
	// One run for all nodes: it may be as fast as the API server lets it.
	config.QPS, config.Burst = 200, 400
	live, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if err := endController(ctx, live, o.namespace()); err != nil {
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
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	// Nobody is left to whom events would tell anything: the statuses do.
	task := &uninstallation{uninstaller: o.reconcilers(mgr, &events.FakeRecorder{}).uninstaller(o.timeout), done: cancel}
	if err := mgr.Add(task); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	// A controller whose kubelet is away is scaled down and works on.
	patience := time.AfterFunc(leasePatience, func() {
		if err := takeLease(ctx, live, o.namespace()); err != nil {
			ctrl.Log.Error(err, "Cannot take the lease away")
		}
	})
	defer patience.Stop()
	task.began = func() { patience.Stop() }
	if err := mgr.Start(ctx); err != nil {
		return err
	}
	switch {
	case !task.ran:
		return errors.New("a controller still works: it holds the lease " + leaseName)
	case task.err != nil:
		return task.err
	}
	if len(task.silent) > 0 {
		fmt.Fprintf(os.Stderr, "The agents of %d nodes did not say that they have detached: %s\n", len(task.silent), v1alpha1.FirstFew(task.silent))
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: leaseName, Namespace: o.namespace()}}
	if err := live.Delete(context.WithoutCancel(ctx), lease); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete the lease: %w", err)
	}
	return nil
}

// endController scales the controller's Deployment to nothing, if there is one.
func endController(ctx context.Context, live client.Client, namespace string) error {
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "xdp-operator-controller", Namespace: namespace}}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":0}}`))
	err := live.SubResource("scale").Patch(ctx, deployment, patch, client.WithSubResourceBody(&autoscalingv1.Scale{}))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("end the controller: %w", err)
	}
	return nil
}

// takeLease puts another holder into the lease. The one that has it ends when it has not renewed it for ten seconds; the
// lease is free five seconds later.
func takeLease(ctx context.Context, live client.Client, namespace string) error {
	lease := &coordinationv1.Lease{}
	if err := live.Get(ctx, types.NamespacedName{Namespace: namespace, Name: leaseName}, lease); err != nil {
		return client.IgnoreNotFound(err)
	}
	holder, seconds, now := "xdp-operator-uninstall", int32(15), metav1.NewMicroTime(clock.System().Now())
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds = &holder, &seconds
	lease.Spec.AcquireTime, lease.Spec.RenewTime = &now, &now
	if err := live.Update(ctx, lease); err != nil {
		return fmt.Errorf("take the lease: %w", err)
	}
	return nil
}

// uninstallation runs an Uninstaller once it holds the lease, and ends the manager then.
type uninstallation struct {
	uninstaller *uninstall.Uninstaller
	done        func()
	began       func()

	ran    bool
	silent []string
	err    error
}

func (u *uninstallation) Start(ctx context.Context) error {
	defer u.done()
	u.began()
	u.ran = true
	u.silent, u.err = u.uninstaller.Run(ctrl.LoggerInto(ctx, ctrl.Log))
	return nil // told by the caller
}

// namespaceEnd lets the agents detach when the controller's own namespace is being deleted. That takes the agents away
// without a word, and the hook of the chart is not run for it. Its right is in config/rbac/namespace_role.yaml: a Role,
// since a namespace is in itself.
type namespaceEnd struct {
	live        client.Reader
	namespace   string
	uninstaller *uninstall.Uninstaller
}

func (n *namespaceEnd) Start(ctx context.Context) error {
	log := ctrl.Log.WithName("namespace")
	if n.namespace == "" {
		return nil
	}
	tick := time.NewTicker(namespaceLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		namespace := &corev1.Namespace{}
		err := n.live.Get(ctx, types.NamespacedName{Name: n.namespace}, namespace)
		switch {
		case apierrors.IsForbidden(err):
			log.Info("Not told whether the namespace is being deleted", "namespace", n.namespace)
			return nil
		case err != nil || namespace.DeletionTimestamp.IsZero():
			continue
		}
		log.Info("The namespace is being deleted")
		silent, err := n.uninstaller.Run(ctrl.LoggerInto(ctx, log))
		log.Info("The agents were told to detach", "silent", v1alpha1.FirstFew(silent), "error", fmt.Sprint(err))
		return nil
	}
}

// awaitSweep waits until the pods of config/sweep are ready on all nodes, each of which is when its node is swept. It
// returns no error when the time is over.
func awaitSweep(ctx context.Context, o options) error {
	config, scheme, err := connect()
	if err != nil {
		return err
	}
	live, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	err = eventually(ctx, o.timeout, func() error {
		sweep := &appsv1.DaemonSet{}
		if err := live.Get(ctx, types.NamespacedName{Namespace: o.namespace(), Name: "xdp-operator-sweep"}, sweep); err != nil {
			return client.IgnoreNotFound(err)
		}
		return everywhere(sweep)
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "Not all nodes are swept:", err)
	}
	return nil
}

// everywhere returns an error while a pod of the DaemonSet is missing or not ready.
func everywhere(d *appsv1.DaemonSet) error {
	s := d.Status
	if s.ObservedGeneration < d.Generation {
		return fmt.Errorf("%s has not been looked at yet", d.Name)
	}
	if s.NumberReady < s.DesiredNumberScheduled {
		return fmt.Errorf("%s is ready on %d of %d nodes", d.Name, s.NumberReady, s.DesiredNumberScheduled)
	}
	return nil
}

// check waits until the kinds are served, a controller works and an agent is ready on every node that is to have one.
func check(ctx context.Context, o options) error {
	config, scheme, err := connect()
	if err != nil {
		return err
	}
	live, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	return eventually(ctx, o.timeout, func() error {
		errs := []error{
			live.List(ctx, &v1alpha1.XDPCounterList{}, client.Limit(1)),
			live.List(ctx, &v1alpha1.XDPNodeStateList{}, client.Limit(1)),
		}
		controller, agents := &appsv1.Deployment{}, &appsv1.DaemonSet{}
		if err := live.Get(ctx, types.NamespacedName{Namespace: o.namespace(), Name: "xdp-operator-controller"}, controller); err != nil {
			errs = append(errs, err)
		} else if controller.Status.AvailableReplicas == 0 {
			errs = append(errs, errors.New("no controller is available"))
		}
		if err := live.Get(ctx, types.NamespacedName{Namespace: o.namespace(), Name: "xdp-operator-agent"}, agents); err != nil {
			errs = append(errs, err)
		} else {
			errs = append(errs, everywhere(agents))
		}
		return errors.Join(errs...)
	})
}

// eventually calls check until it returns nil. After the timeout it returns check's last error.
func eventually(ctx context.Context, timeout time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(progress):
		}
	}
}
