// SPDX-License-Identifier: Apache-2.0

// Package integration tests the controller and the agents together. Binaries, API server, XDP programs and frames are real.
// Nodes are network namespaces.
package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
	wait "github.com/xdp-operator/xdp-operator/test/util/eventually"
	"github.com/xdp-operator/xdp-operator/test/util/objects"
)

const root = "../.."

// soon is the timeout for everything that should happen at once, on a busy machine.
const soon = 30 * time.Second

// c is the cluster, with a controller and the nodes n1, n2 and n3, which have agents.
var c *netnscluster.Cluster

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	prepare := func() error { return netnscluster.Prepare(context.Background(), root, false, os.Stderr) }
	netnscluster.Inside(root, "integration", prepare, func(box *sandbox.Sandbox, dir string) (status int, err error) {
		if err = setUp(box, dir); err == nil {
			status = m.Run()
		}
		if c != nil {
			err = errors.Join(err, c.Stop())
		}
		return status, err
	})
}

func setUp(box *sandbox.Sandbox, dir string) (err error) {
	ctx := context.Background()
	if c, err = netnscluster.Start(ctx, box, netnscluster.Options{Root: root, Dir: dir}); err != nil {
		return err
	}
	if _, err := startController("controller", "--health-probe-bind-address="+controllerProbes); err != nil {
		return err
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		n, err := c.AddNode(ctx, name, map[string]string{"pool": "edge", "name": name})
		if err != nil {
			return err
		}
		if err := n.StartAgent(ctx, "--health-probe-bind-address="+agentProbes); err != nil {
			return err
		}
	}
	return nil
}

// The addresses of the probes of the processes that TestMain starts, in the sandbox and on each node.
const (
	controllerProbes = "127.0.0.1:8081"
	agentProbes      = "127.0.0.1:8082"
)

func startController(name string, args ...string) (*netnscluster.Process, error) {
	return c.StartController(context.Background(), name, append([]string{"--status-interval=200ms"}, args...)...)
}

// counter creates an XDPCounter with a report interval of one second, and deletes it at the end of the test. After the last
// counter is deleted, nothing must be left.
func counter(t testing.TB, name string, change func(*v1alpha1.XDPCounterSpec)) {
	t.Helper()
	x := &v1alpha1.XDPCounter{}
	x.Name = name
	x.Spec.ReportInterval.Duration = time.Second
	if change != nil {
		change(&x.Spec)
	}
	if err := c.Client.Create(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(c.Client.Delete(context.Background(), x)); err != nil {
			t.Error(err)
		}
		left := &v1alpha1.XDPCounterList{}
		if err := c.Client.List(context.Background(), left); err != nil || len(left.Items) == 0 {
			expectClean(t)
		}
	})
}

func get(t testing.TB, name string) (*v1alpha1.XDPCounter, error) {
	t.Helper()
	x := &v1alpha1.XDPCounter{}
	err := c.Client.Get(t.Context(), types.NamespacedName{Name: name}, x)
	return x, err
}

// edit changes the spec of a counter.
func edit(t testing.TB, name string, change func(*v1alpha1.XDPCounterSpec)) {
	t.Helper()
	x := &v1alpha1.XDPCounter{}
	x.Name = name
	if err := objects.Edit(t.Context(), c.Client, x, func() { change(&x.Spec) }); err != nil {
		t.Fatal(err)
	}
}

// eventually calls check until it returns nil.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	wait.Succeed(t, soon, check)
}

// expectReady waits until the counter's Ready condition has the status and reason for the current generation.
func expectReady(t testing.TB, name, status, reason string) {
	t.Helper()
	expectMessage(t, name, status, reason, "")
}

// expectMessage waits until the counter's Ready condition has the status, reason and message for the current generation. The
// message is without the remedy. An empty one matches any.
func expectMessage(t testing.TB, name, status, reason, message string) {
	t.Helper()
	eventually(t, func() error {
		x, err := get(t, name)
		if err != nil {
			return err
		}
		ready := x.Status.Conditions[0]
		if string(ready.Status) != status || ready.Reason != reason || ready.ObservedGeneration != x.Generation ||
			message != "" && v1alpha1.CauseOf(ready.Message) != message {
			return fmt.Errorf("counter %s is Ready=%s, %s: %s (generation %d of %d), want %s, %s: %s",
				name, ready.Status, ready.Reason, ready.Message, ready.ObservedGeneration, x.Generation, status, reason, message)
		}
		return nil
	})
}

// expectClean waits until no node has anything of the project left, and no node state exists.
func expectClean(t testing.TB) {
	t.Helper()
	err := wait.Check(context.Background(), soon, func() error {
		states := &v1alpha1.XDPNodeStateList{}
		if err := c.Client.List(context.Background(), states); err != nil {
			return err
		}
		var errs []error
		for _, s := range states.Items {
			errs = append(errs, fmt.Errorf("node state %s still exists", s.Name))
		}
		for _, n := range c.Nodes() {
			left, err := n.Leftovers()
			if err != nil {
				errs = append(errs, err)
			}
			for _, l := range left {
				errs = append(errs, fmt.Errorf("left on %s: %s", n.Name, l))
			}
		}
		return errors.Join(errs...)
	})
	if err != nil {
		t.Error(err)
	}
}
