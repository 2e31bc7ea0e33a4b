// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	wait "github.com/xdp-operator/xdp-operator/test/util/eventually"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// uninstall runs the command of the chart's hook with its permissions, and returns its output.
func uninstall(t *testing.T, timeout time.Duration) (string, error) {
	t.Helper()
	if out, err := c.Kubectl(t.Context(), "apply", "-k", filepath.Join(root, "config/uninstall"), "-n", netnscluster.Namespace).CombinedOutput(); err != nil {
		t.Fatalf("apply config/uninstall: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := c.Kubectl(context.Background(), "delete", "--ignore-not-found", "--wait=false", "-k", filepath.Join(root, "config/uninstall"), "-n", netnscluster.Namespace).CombinedOutput(); err != nil {
			t.Errorf("delete config/uninstall: %v: %s", err, out)
		}
	})
	config, err := c.Kubeconfig("system:serviceaccount:"+netnscluster.Namespace+":xdp-operator-uninstall",
		"system:serviceaccounts", "system:serviceaccounts:"+netnscluster.Namespace, "system:authenticated")
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, config, 0o600); err != nil {
		t.Fatal(err)
	}
	hook := exec.CommandContext(t.Context(), netnscluster.Program(root, "controller"), "--kubeconfig="+kubeconfig,
		"--leader-election-namespace="+netnscluster.Namespace, fmt.Sprintf("--timeout=%s", timeout), "uninstall")
	out, err := hook.CombinedOutput()
	return string(out), err
}

// withoutController stops the controllers for the duration of the test, and then starts one.
func withoutController(t *testing.T, end func(*netnscluster.Process) error) {
	t.Helper()
	for _, p := range c.Controllers() {
		if err := end(p); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if _, err := startController("controller-after-" + strings.ReplaceAll(t.Name(), "/", "-")); err != nil {
			t.Error(err)
		}
	})
}

func TestUninstall(t *testing.T) {
	observe(t)
	counter(t, "uninstalled", nil)
	expectReady(t, "uninstalled", "True", v1alpha1.ReasonAllInterfacesAttached)
	var sent traffic.Totals
	for _, n := range c.Nodes() {
		send(t, n, frames.Common()[0], 20, &sent)
	}
	// These frames are not reported yet, and must not be lost.
	withoutController(t, (*netnscluster.Process).Kill)
	out, err := uninstall(t, 20*time.Second)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	expectClean(t)
	expectMessage(t, "uninstalled", "Unknown", v1alpha1.ReasonUninstalled, "xdp-operator was uninstalled: nothing is counted; the totals are kept")
	expectTotals(t, "uninstalled", sent)
	lease := &coordinationv1.Lease{}
	if err := c.Client.Get(t.Context(), types.NamespacedName{Namespace: netnscluster.Namespace, Name: "xdp-operator-controller"}, lease); err == nil {
		t.Error("the lease is left")
	}

	t.Run("second uninstall", func(t *testing.T) {
		if out, err := uninstall(t, 20*time.Second); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		expectTotals(t, "uninstalled", sent)
	})
	t.Run("install again", func(t *testing.T) {
		if _, err := startController("reinstalled"); err != nil {
			t.Fatal(err)
		}
		expectReady(t, "uninstalled", "True", v1alpha1.ReasonAllInterfacesAttached)
		for _, n := range c.Nodes() {
			send(t, n, frames.Common()[1], 5, &sent)
		}
		expectTotals(t, "uninstalled", sent)
	})
}

// TestUninstallStopsController uses a Deployment without a kubelet. When it is scaled to zero, the test stops the controller.
func TestUninstallStopsController(t *testing.T) {
	counter(t, "ended", nil)
	expectReady(t, "ended", "True", v1alpha1.ReasonAllInterfacesAttached)
	labels := map[string]string{"app": "controller"}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "xdp-operator-controller", Namespace: netnscluster.Namespace},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a"}}}},
		},
	}
	create(t, deployment)
	kubelet := make(chan error, 1)
	go func() {
		kubelet <- wait.Check(context.Background(), soon, func() error {
			d := &appsv1.Deployment{}
			if err := c.Client.Get(context.Background(), client.ObjectKeyFromObject(deployment), d); err != nil {
				return err
			}
			if *d.Spec.Replicas != 0 {
				return errors.New("the controller is not scaled down")
			}
			return nil
		})
		for _, p := range c.Controllers() {
			_ = p.Kill()
		}
	}()
	withoutController(t, func(*netnscluster.Process) error { return nil })
	out, err := uninstall(t, 20*time.Second)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := <-kubelet; err != nil {
		t.Error(err)
	}
	expectClean(t)
}

// TestUninstallTakesLease uninstalls while the controller continues to run, as if its kubelet were unreachable.
func TestUninstallTakesLease(t *testing.T) {
	withoutController(t, (*netnscluster.Process).Kill)
	p, err := startController("works-on")
	if err != nil {
		t.Fatal(err)
	}
	counter(t, "works-on", nil)
	expectReady(t, "works-on", "True", v1alpha1.ReasonAllInterfacesAttached)
	out, err := uninstall(t, 20*time.Second)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := p.Ended(); err == nil {
		t.Error("the controller works on")
	}
	expectClean(t)
	expectMessage(t, "works-on", "Unknown", v1alpha1.ReasonUninstalled, "")
}

func TestUninstallTimeout(t *testing.T) {
	observe(t)
	counter(t, "dead", nil)
	expectReady(t, "dead", "True", v1alpha1.ReasonAllInterfacesAttached)
	var sent traffic.Totals
	for _, n := range c.Nodes() {
		send(t, n, frames.Common()[0], 7, &sent)
	}
	expectTotals(t, "dead", sent)
	// One agent does not run, as if it were crash-looping or its node were unreachable.
	n := c.Nodes()[1]
	if err := n.StopAgent(); err != nil {
		t.Fatal(err)
	}
	withoutController(t, (*netnscluster.Process).Kill)
	begin := time.Now()
	out, err := uninstall(t, 3*time.Second)
	if err != nil || !strings.Contains(out, "1 node has not reported that all interfaces are detached: "+n.Name) {
		t.Errorf("%v: %s", err, out)
	}
	t.Logf("ended after %s", time.Since(begin).Round(time.Millisecond))
	expectTotals(t, "dead", sent)
	if left, err := n.Leftovers(); err != nil || len(left) == 0 {
		t.Errorf("without its agent nothing can have been detached on %s: %v, %v", n.Name, left, err)
	}
	// The chart's sweep.
	if err := n.Cleanup(t.Context()); err != nil {
		t.Error(err)
	}
	expectClean(t)
	// An agent that starts again has nothing to do.
	if err := n.StartAgent(context.Background(), "--health-probe-bind-address="+agentProbes); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return n.Do(func() error { return probe(t.Context(), agentProbes, "readyz") }) })
	expectClean(t)
}

func TestUninstallAfterSweep(t *testing.T) {
	counter(t, "swept", nil)
	expectReady(t, "swept", "True", v1alpha1.ReasonAllInterfacesAttached)
	x, err := get(t, "swept")
	if err != nil {
		t.Fatal(err)
	}
	// The counters are deleted before the operator.
	if err := c.Client.Delete(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	expectClean(t)
	withoutController(t, (*netnscluster.Process).Kill)
	if out, err := uninstall(t, 10*time.Second); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	expectClean(t)
}

// TestNamespaceDeleted starts the controller with a separate namespace, because the other tests need the usual one. It works
// because Kubernetes does not delete the contents of a namespace in the first five seconds.
func TestNamespaceDeleted(t *testing.T) {
	observe(t)
	withoutController(t, (*netnscluster.Process).Kill)
	home := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "home"}}
	create(t, home)
	for _, name := range []string{"xdp-operator-namespace", "xdp-operator-leader-election"} {
		role := &rbacv1.Role{}
		if err := c.Client.Get(t.Context(), types.NamespacedName{Namespace: netnscluster.Namespace, Name: name}, role); err != nil {
			t.Fatal(err)
		}
		create(t, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: home.Name}, Rules: role.Rules})
		create(t, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: home.Name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "xdp-operator-controller", Namespace: netnscluster.Namespace}},
		})
	}
	p, err := startController("homeless", "--leader-election-namespace=home")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Kill() }()
	counter(t, "homeless", nil)
	expectReady(t, "homeless", "True", v1alpha1.ReasonAllInterfacesAttached)
	var sent traffic.Totals
	for _, n := range c.Nodes() {
		send(t, n, frames.Common()[0], 9, &sent)
	}
	begin := time.Now()
	if err := c.Client.Delete(t.Context(), home); err != nil {
		t.Fatal(err)
	}
	expectClean(t)
	t.Logf("clean %s after the deletion of the namespace", time.Since(begin).Round(time.Millisecond))
	expectTotals(t, "homeless", sent)
	expectMessage(t, "homeless", "Unknown", v1alpha1.ReasonUninstalled, "")
	eventually(t, func() error {
		if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(home), home); err == nil {
			return errors.New("the namespace is still there")
		}
		return nil
	})
}

// TestCRDsDeletedFirst checks that the agents detach when the CRDs, and with them all objects, are deleted.
func TestCRDsDeletedFirst(t *testing.T) {
	counter(t, "kinds", nil)
	expectReady(t, "kinds", "True", v1alpha1.ReasonAllInterfacesAttached)
	withoutController(t, (*netnscluster.Process).Kill) // it could not do anything
	kinds := filepath.Join(root, "config/crd")
	if out, err := c.Kubectl(t.Context(), "delete", "--timeout=30s", "-k", kinds).CombinedOutput(); err != nil {
		t.Errorf("delete the CRDs: %v: %s", err, out)
	}
	t.Cleanup(func() { // before the next controller starts
		for _, args := range [][]string{{"apply", "--server-side", "-k", kinds}, {"wait", "--for=condition=established", "crd/xdpcounters.xdp-operator.io", "crd/xdpnodestates.xdp-operator.io"}} {
			if out, err := c.Kubectl(context.Background(), args...).CombinedOutput(); err != nil {
				t.Errorf("kubectl %v: %v: %s", args, err, out)
			}
		}
		for _, n := range c.Nodes() { // a running agent finds the kinds again only after some time
			if err := errors.Join(n.StopAgent(), n.StartAgent(context.Background(), "--health-probe-bind-address="+agentProbes)); err != nil {
				t.Error(err)
			}
		}
	})
	for _, n := range c.Nodes() {
		eventually(t, func() error {
			left, err := n.Leftovers()
			if err == nil && len(left) > 0 {
				err = fmt.Errorf("left on %s: %v", n.Name, left)
			}
			return err
		})
	}
}
