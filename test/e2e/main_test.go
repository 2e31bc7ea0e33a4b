// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the whole operator as users install it: the image, installed by helm on a cluster of real nodes, while the
// tests send frames and count them.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/test/env/image"
	"github.com/xdp-operator/xdp-operator/test/env/kubeletcluster"
	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
	wait "github.com/xdp-operator/xdp-operator/test/util/eventually"
	"github.com/xdp-operator/xdp-operator/test/util/scheme"
)

const (
	root      = "../.."
	chart     = root + "/charts/xdp-operator"
	sample    = root + "/config/samples/xdp-operator_v1alpha1_xdpcounter.yaml"
	release   = "xdp-operator"
	namespace = "xdp-operator-system"

	// The two builds of the image, by their tag, which is the version that their programs report.
	older = "e2e-1"
	newer = "e2e-2"

	// soon is the timeout for everything that should happen at once, on a busy machine.
	soon = time.Minute
)

var (
	c   *kubeletcluster.Cluster // with the nodes n1 and n2; nil if the cluster existed before
	api client.WithWatch        // with all rights

	// tools are those of c or of the cluster that existed before.
	tools interface {
		Kubectl(ctx context.Context, args ...string) *exec.Cmd
		Helm(ctx context.Context, args ...string) *exec.Cmd
	}
)

// ownNodes returns the nodes whose kernels and wires the tests have access to: none of a cluster that existed before.
func ownNodes() []*kubeletcluster.Node {
	if existing != nil {
		return nil
	}
	return c.Nodes()
}

// countNodes returns how many nodes the cluster has.
func countNodes(ctx context.Context) (int, error) {
	if existing == nil {
		return len(c.Nodes()), nil
	}
	nodes, err := existing.nodes(ctx)
	return len(nodes), err
}

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	if os.Getenv(existingVariable) != "" {
		if err := useExisting(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	box, err := kubeletcluster.Enter(root, sandbox.Options{Outside: buildImages}, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(func() int {
		status := 1
		if err := setUp(context.Background(), box); err != nil {
			fmt.Fprintln(os.Stderr, err)
		} else {
			status = m.Run()
		}
		if c != nil {
			if err := c.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				status = 1
			}
		}
		return status
	}())
}

// archive returns the path of the image with the tag.
func archive(tag string) string {
	return filepath.Join(root, "bin", "e2e", "xdp-operator-"+tag+".tar")
}

// buildImages builds the two images from the repository.
func buildImages() error {
	if err := os.MkdirAll(filepath.Dir(archive(older)), 0o755); err != nil {
		return err
	}
	for _, tag := range []string{older, newer} {
		built, err := image.Operator(context.Background(), root, "xdp-operator:"+tag, tag, runtime.GOARCH, os.Stderr)
		if err != nil {
			return err
		}
		file, err := os.Create(archive(tag))
		if err != nil {
			return err
		}
		if err := errors.Join(built.Write(file), file.Close()); err != nil {
			return fmt.Errorf("write %s: %w", file.Name(), err)
		}
	}
	return nil
}

func setUp(ctx context.Context, box *sandbox.Sandbox) (err error) {
	if c, err = kubeletcluster.Start(ctx, box, kubeletcluster.Options{Log: os.Stdout}); err != nil {
		return err
	}
	tools = c
	if api, err = newClient(c.Config()); err != nil {
		return err
	}
	if err := c.AddNodes(ctx, "n1", "n2"); err != nil {
		return err
	}
	return errors.Join(c.Load(ctx, archive(older)), c.Load(ctx, archive(newer)))
}

// newClient returns a client for the objects of Kubernetes and of the project, which the API server knows only later.
func newClient(config *rest.Config) (client.WithWatch, error) {
	return client.NewWithWatch(config, client.Options{Scheme: scheme.New()})
}

// eventually calls check until it returns nil.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	wait.Succeed(t, soon, check)
}

// run runs a command, which must succeed, and returns its output.
func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", cmd, err, out)
	}
	return string(out)
}

func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, tools.Kubectl(t.Context(), args...))
}

// helm runs helm in the release's namespace and logs the duration.
func helm(t *testing.T, args ...string) string {
	t.Helper()
	began := time.Now()
	out := run(t, tools.Helm(t.Context(), append(args, "--namespace", namespace, "--timeout", "3m")...))
	t.Logf("helm %s: %.1f s", args[0], time.Since(began).Seconds())
	return out
}

// with adds the helm options that select a build of the image.
func with(tag string, args ...string) []string {
	if existing != nil {
		return append(args, existing.settings(tag)...)
	}
	return append(args, "--set=image.tag="+tag)
}

// logOnFailure logs what somebody asks who finds the test failed.
func logOnFailure(t *testing.T) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, args := range [][]string{
			{"get", "nodes,pods,jobs,daemonsets,deployments", "--all-namespaces", "--output=wide"},
			{"get", "xdpcounters,xdpnodestates", "--output=wide"},
			{"get", "events", "--namespace", namespace},
			{"logs", "--namespace", namespace, "--selector", "app.kubernetes.io/name=xdp-operator", "--all-containers", "--prefix", "--tail=40"},
		} {
			out, err := tools.Kubectl(context.Background(), args...).CombinedOutput()
			t.Logf("kubectl %v (%v):\n%s", args, err, out)
		}
	})
}
