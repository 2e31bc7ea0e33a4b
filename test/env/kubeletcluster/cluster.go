// SPDX-License-Identifier: Apache-2.0

package kubeletcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/xdp-operator/xdp-operator/test/env/controlplane"
	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
)

// Options says how Start runs a cluster.
type Options struct {
	Log io.Writer // gets a line per step; may be nil
}

// Cluster is a control plane with nodes. Its methods may be called at the same time.
type Cluster struct {
	*controlplane.ControlPlane

	programs Programs
	state    *state
	fabric   *sandbox.Fabric
	client   kubernetes.Interface
	log      io.Writer
	began    time.Time

	mu    sync.Mutex // guards nodes and the routes between them
	nodes []*Node
}

// Start runs a control plane, without nodes. It must be called in the sandbox of Enter; if the sandbox is killed, what
// is left is removed by the next Enter or Sweep. If Start returns an error, nothing runs.
func Start(ctx context.Context, box *sandbox.Sandbox, o Options) (_ *Cluster, err error) {
	c := &Cluster{log: o.Log, began: time.Now()}
	if c.log == nil {
		c.log = io.Discard
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	if c.programs, err = programs(); err != nil {
		return nil, err
	}
	if c.state, err = newState(); err != nil {
		return nil, err
	}
	fabric := filepath.Join(c.state.dir, "fabric")
	if err := os.Mkdir(fabric, 0o755); err != nil {
		return nil, err
	}
	if c.fabric, err = box.NewFabric(fabric); err != nil {
		return nil, err
	}
	c.ControlPlane, err = controlplane.Start(ctx, controlplane.Options{
		Assets:  c.programs.Assets,
		Dir:     filepath.Join(c.state.dir, "controlplane"),
		Address: sandbox.FabricAddress,
		Kubelets: &controlplane.Kubelets{
			ServiceCIDR: serviceCIDR, ServiceAddress: serviceAddress,
			Scheduler: filepath.Join(c.programs.Kubernetes, "kube-scheduler"),
		},
	})
	if err != nil {
		return nil, err
	}
	if c.client, err = kubernetes.NewForConfig(c.Config()); err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	c.say("the control plane is ready")
	return c, nil
}

// say prints a line with the time since Start.
func (c *Cluster) say(format string, args ...any) {
	fmt.Fprintf(c.log, "cluster: %5.1f s  %s\n", time.Since(c.began).Seconds(), fmt.Sprintf(format, args...))
}

// Stop ends everything and removes it. It may be called more than once.
func (c *Cluster) Stop() error {
	var errs []error
	for _, n := range c.Nodes() {
		errs = append(errs, n.Remove())
	}
	if c.ControlPlane != nil {
		errs = append(errs, c.ControlPlane.Stop())
		c.ControlPlane = nil
	}
	if c.fabric != nil {
		errs = append(errs, c.fabric.Remove())
		c.fabric = nil
	}
	if c.state != nil {
		errs = append(errs, c.state.remove())
		c.state = nil
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop the cluster: %w", err)
	}
	return nil
}

// Dir returns the folder of the cluster: logs of the control plane are in controlplane/logs, those of a node in
// nodes/NAME/logs. Stop removes it.
func (c *Cluster) Dir() string { return c.state.dir }

// Nodes returns the nodes in the order in which they were added.
func (c *Cluster) Nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.nodes)
}

// Helm returns a helm with the rights of Config and without the user's settings, for the caller to run.
func (c *Cluster) Helm(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.programs.Helm, "helm"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.AdminKubeconfig())
	for _, kind := range []string{"CACHE", "CONFIG", "DATA"} {
		cmd.Env = append(cmd.Env, "HELM_"+kind+"_HOME="+filepath.Join(c.state.dir, "helm", kind))
	}
	return cmd
}

// Load imports the archive of an image, as test/env/image writes it, on every node.
func (c *Cluster) Load(ctx context.Context, archive string) error {
	var errs []error
	for _, n := range c.Nodes() {
		errs = append(errs, n.Load(ctx, archive))
	}
	return errors.Join(errs...)
}

// Tools returns the executables by name that people use with the cluster: kubectl and helm.
func (c *Cluster) Tools() map[string]string {
	return map[string]string{
		"kubectl": filepath.Join(c.programs.Kubernetes, "kubectl"),
		"helm":    filepath.Join(c.programs.Helm, "helm"),
	}
}
