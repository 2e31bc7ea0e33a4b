// SPDX-License-Identifier: Apache-2.0

// Package netnscluster runs a whole cluster on one machine: a real control plane, nodes that are network namespaces,
// and the real controller and agents as processes with the rights of their service accounts.
package netnscluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/test/env/controlplane"
	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
	"github.com/xdp-operator/xdp-operator/test/util/gobuild"
	"github.com/xdp-operator/xdp-operator/test/util/scheme"
)

// Namespace is where the service accounts live (config/rbac).
const Namespace = "xdp-operator-system"

// assetsVariable carries the binaries of the control plane into the sandbox.
const assetsVariable = "KUBEBUILDER_ASSETS"

// Prepare gets what needs the machine's network: the control plane's binaries, and the controller and agent built
// from this clone. It belongs into sandbox.Options.Outside. root is the top folder of the clone. With withoutControllers
// kube-controller-manager is not among the binaries (Options.WithoutControllers).
func Prepare(ctx context.Context, root string, withoutControllers bool, progress io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Both at the same time: the build of the control plane leaves cores idle while it downloads modules and links.
	began, built := time.Now(), make(chan error, 1)
	go func() { built <- buildPrograms(ctx, root) }()
	var names []string
	if withoutControllers {
		names = []string{"etcd", "kube-apiserver", "kubectl"}
	}
	assets, err := controlplane.Assets(ctx, progress, names...)
	if err != nil {
		cancel()
		return errors.Join(err, <-built)
	}
	if err := os.Setenv(assetsVariable, assets); err != nil {
		return err
	}
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-built:
			return err
		case <-tick.C:
			fmt.Fprintf(progress, "netnscluster: building the controller, the agent and the kubectl plugin: %.0f s\n", time.Since(began).Seconds())
		}
	}
}

// buildPrograms builds the programs of cmd/. Its error has the output of the compiler.
func buildPrograms(ctx context.Context, root string) error {
	args := append([]string{"build", "-o", programs + "/"}, buildFlags...)
	build := exec.CommandContext(ctx, "go", append(args, "./cmd/...")...)
	build.Dir, build.Env = root, gobuild.Env(buildCGO)
	// At a signal the go command stops its compilers.
	build.Cancel = func() error { return build.Process.Signal(os.Interrupt) }
	build.WaitDelay = 10 * time.Second
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the controller and the agent: %w\n%s", err, out)
	}
	return nil
}

// Options says how Start runs a cluster.
type Options struct {
	Root string    // the top folder of the clone, prepared
	Dir  string    // gets data and logs
	Log  io.Writer // gets a line per step; may be nil

	WithoutControllers bool // as in controlplane.Options
}

// Cluster is a control plane with nodes.
type Cluster struct {
	*controlplane.ControlPlane
	Client client.Client // with all rights

	options     Options
	fabric      *sandbox.Fabric
	nodes       []*Node
	controllers []*Process
	kubeconfigs map[string]string // paths by name
}

// Start runs a control plane that knows the CRDs and the roles of config/, without nodes and without controller.
// If it returns an error, nothing runs.
func Start(ctx context.Context, box *sandbox.Sandbox, o Options) (_ *Cluster, err error) {
	c := &Cluster{options: o, kubeconfigs: map[string]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	if err := os.MkdirAll(filepath.Join(o.Dir, "logs"), 0o700); err != nil {
		return nil, fmt.Errorf("make a directory for the cluster: %w", err)
	}
	if c.fabric, err = box.NewFabric(o.Dir); err != nil {
		return nil, err
	}
	c.ControlPlane, err = controlplane.Start(ctx, controlplane.Options{
		Assets:  os.Getenv(assetsVariable),
		Dir:     filepath.Join(o.Dir, "controlplane"),
		Address: sandbox.FabricAddress,
		CRDs:    []string{filepath.Join(o.Root, "config/crd/bases")},
		Log:     o.Log,

		WithoutControllers: o.WithoutControllers,
	})
	if err != nil {
		return nil, err
	}
	if c.Client, err = client.New(c.Config(), client.Options{Scheme: scheme.New()}); err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	namespace := &corev1.Namespace{}
	namespace.Name = Namespace
	if err := c.Client.Create(ctx, namespace); err != nil {
		return nil, fmt.Errorf("create the namespace: %w", err)
	}
	if out, err := c.Kubectl(ctx, "apply", "-k", filepath.Join(o.Root, "config/rbac"), "-n", Namespace).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("apply the roles: %w: %s", err, out)
	}
	return c, nil
}

// Stop ends everything that Start and the methods began.
func (c *Cluster) Stop() error {
	var errs []error
	for _, w := range c.controllers {
		errs = append(errs, w.Kill())
	}
	for _, n := range c.nodes {
		if n.Agent != nil {
			errs = append(errs, n.Agent.Kill())
		}
	}
	if c.ControlPlane != nil {
		errs = append(errs, c.ControlPlane.Stop())
	}
	if c.fabric != nil {
		errs = append(errs, c.fabric.Remove())
	}
	if raceDetector {
		errs = append(errs, races(filepath.Join(c.options.Dir, "logs")))
	}
	return errors.Join(errs...)
}

// StartController runs the controller. More than one may run; name tells them apart.
func (c *Cluster) StartController(ctx context.Context, name string, args ...string) (*Process, error) {
	return c.StartControllerAs(ctx, name, Build{}, args...)
}

// StartControllerAs runs a controller that is not the one of Prepare, or not as that would be.
func (c *Cluster) StartControllerAs(ctx context.Context, name string, b Build, args ...string) (*Process, error) {
	kubeconfig, err := c.kubeconfigOf("xdp-operator-controller", name)
	if err != nil {
		return nil, err
	}
	args = append([]string{"--kubeconfig=" + kubeconfig, "--leader-election-namespace=" + Namespace, "--health-probe-bind-address=0"}, args...)
	cmd := exec.CommandContext(ctx, cmp.Or(b.Path, Program(c.options.Root, "controller")), args...)
	b.apply(cmd)
	p, err := start(cmd, c.log(name))
	if err != nil {
		return nil, err
	}
	c.controllers = append(c.controllers, p)
	return p, nil
}

// Controllers returns all controllers that were started, also those that have ended.
func (c *Cluster) Controllers() []*Process { return slices.Clone(c.controllers) }

func (c *Cluster) log(name string) string {
	return filepath.Join(c.options.Dir, "logs", name+".log")
}

// kubeconfigOf writes a kubeconfig with the rights of a service account of ours. name is that of the file.
func (c *Cluster) kubeconfigOf(account, name string) (path string, err error) {
	if path, ok := c.kubeconfigs[name]; ok {
		return path, nil
	}
	config, err := c.Kubeconfig("system:serviceaccount:"+Namespace+":"+account,
		"system:serviceaccounts", "system:serviceaccounts:"+Namespace, "system:authenticated")
	if err != nil {
		return "", err
	}
	path = filepath.Join(c.options.Dir, name+".kubeconfig")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return "", fmt.Errorf("write a kubeconfig: %w", err)
	}
	c.kubeconfigs[name] = path
	return path, nil
}
