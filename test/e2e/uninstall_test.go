// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/xdp-operator/xdp-operator/test/env/kubeletcluster"
)

// TestUninstallOrders removes the operator in the usual orders, in addition to that of TestInstallToUninstall. Each starts with
// an installation that counts on both nodes. At the end nothing is attached or pinned on a node, and no objects and no
// namespace are left.
func TestUninstallOrders(t *testing.T) {
	defer logResidues(t)
	for _, order := range []struct {
		name   string
		own    bool               // needs a cluster of our own
		before func(t *testing.T) // called before the installation; can be nil
		remove func(t *testing.T)
	}{
		{"the counters first", false, nil, func(t *testing.T) {
			kubectl(t, "delete", "xdpcounters", "--all", "--wait=false")
			helm(t, "uninstall", release, "--wait")
		}},
		{"the controller first", false, nil, func(t *testing.T) {
			kubectl(t, "scale", "--namespace", namespace, "--replicas=0", "deployment/xdp-operator-controller")
			kubectl(t, "wait", "--namespace", namespace, "--for=delete", "--timeout=1m", "pods", "--selector", "app.kubernetes.io/component=controller")
			helm(t, "uninstall", release, "--wait")
		}},
		{"while all agents crash", false, nil, func(t *testing.T) {
			helm(t, "upgrade", release, chart, "--reuse-values", "--set=agent.extraArgs={--no-such-flag}",
				"--set=agent.updateStrategy.rollingUpdate.maxUnavailable=100%")
			awaitCrashes(t)
			helm(t, "uninstall", release, "--wait")
		}},
		{"the namespace first", false, nil, func(t *testing.T) {
			kubectl(t, "delete", "namespace", namespace, "--timeout=2m")
			expectNothingOn(t, ownNodes())
			// helm's release record was in the namespace, so a new installation is needed to remove the other objects.
			installToRemove(t)
			helm(t, "uninstall", release, "--wait")
		}},
		{"a node first, which comes back later", true,
			func(t *testing.T) { kubectl(t, "cordon", c.Nodes()[1].Name) },
			func(t *testing.T) {
				n1, n2 := c.Nodes()[0], c.Nodes()[1]
				if err := n2.PowerOff(); err != nil {
					t.Fatal(err)
				}
				helm(t, "uninstall", release, "--wait")
				expectNothingOn(t, []*kubeletcluster.Node{n1})
				if err := n2.PowerOn(t.Context()); err != nil {
					t.Fatal(err)
				}
				kubectl(t, "uncordon", n2.Name)
			}},
		{"a node stands still, and goes on later", true,
			func(t *testing.T) { kubectl(t, "cordon", c.Nodes()[1].Name) },
			func(t *testing.T) {
				n1, n2 := c.Nodes()[0], c.Nodes()[1]
				if err := n2.Freeze(); err != nil {
					t.Fatal(err)
				}
				helm(t, "uninstall", release, "--wait")
				expectNothingOn(t, []*kubeletcluster.Node{n1})
				if err := n2.Thaw(); err != nil {
					t.Fatal(err)
				}
				kubectl(t, "uncordon", n2.Name)
			}},
	} {
		if order.own && existing != nil {
			t.Logf("left out, since the cluster is not of our own: %s", order.name)
			continue
		}
		passed := t.Run(order.name, func(t *testing.T) {
			logOnFailure(t)
			if order.before != nil {
				order.before(t)
			}
			installToRemove(t)
			kubectl(t, "apply", "--filename", sample)
			awaitReady(t)
			var had []objects
			for _, n := range ownNodes() {
				had = append(had, objectsOf(t, n))
			}
			began := time.Now()
			order.remove(t)
			expectNothing(t, order.name, time.Since(began).Seconds(), had)
		})
		if !passed {
			return // the next one would find the residue
		}
	}
}

// installToRemove installs the chart so that its removal deletes the CRDs too, and does not wait long for missing agents.
func installToRemove(t *testing.T) {
	t.Helper()
	helm(t, with(older, "install", release, chart, "--create-namespace", "--set=crd.keep=false", "--set=uninstall.timeoutSeconds=10", "--wait")...)
}

// awaitCrashes waits until the agents of all nodes are in a crash loop.
func awaitCrashes(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		out := kubectl(t, "get", "pods", "--namespace", namespace, "--selector", "app.kubernetes.io/component=agent", "--output=json")
		var pods corev1.PodList
		if err := json.Unmarshal([]byte(out), &pods); err != nil {
			return err
		}
		if n, err := countNodes(t.Context()); err != nil || len(pods.Items) != n {
			return errors.Join(err, fmt.Errorf("there are %d agents", len(pods.Items)))
		}
		var errs []error
		for _, p := range pods.Items {
			if s := p.Status.ContainerStatuses; len(s) == 0 || s[0].RestartCount == 0 {
				errs = append(errs, fmt.Errorf("%s has not crashed", p.Name))
			}
		}
		return errors.Join(errs...)
	})
}
