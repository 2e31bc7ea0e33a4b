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
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// uninstall runs what the chart's hook does, with its rights, and returns what it says.
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

// withoutController ends the controllers for the test. Then one works again.
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

func TestUninstallingDetachesAndKeepsTheTotals(t *testing.T) {
	observe(t)
	counter(t, "uninstalled", nil)
	expectReady(t, "uninstalled", "True", v1alpha1.ReasonAllInterfacesAttached)
	var sent traffic.Totals
	for _, n := range c.Nodes() {
		send(t, n, frames.Common()[0], 20, &sent)
	}
	// What is not reported yet is what counts here.
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

	t.Run("again, with nothing to do", func(t *testing.T) {
		if out, err := uninstall(t, 20*time.Second); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		expectTotals(t, "uninstalled", sent)
	})
	t.Run("and a later installation counts on", func(t *testing.T) {
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

// TestUninstallingEndsTheController has a Deployment that stands for the controller: who scales it to nothing ends it.
func TestUninstallingEndsTheController(t *testing.T) {
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
		kubelet <- netnscluster.Eventually(context.Background(), soon, func() error {
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

// TestUninstallingTakesTheLeaseOfAControllerThatWorksOn: its kubelet is away, so nobody ends it.
func TestUninstallingTakesTheLeaseOfAControllerThatWorksOn(t *testing.T) {
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

func TestUninstallingDoesNotWaitForever(t *testing.T) {
	observe(t)
	counter(t, "dead", nil)
	expectReady(t, "dead", "True", v1alpha1.ReasonAllInterfacesAttached)
	var sent traffic.Totals
	for _, n := range c.Nodes() {
		send(t, n, frames.Common()[0], 7, &sent)
	}
	expectTotals(t, "dead", sent)
	// One agent does not run: crash-looping, or its node is away.
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
	// The sweep of the chart.
	if err := n.Cleanup(t.Context()); err != nil {
		t.Error(err)
	}
	expectClean(t)
	// An agent that comes back finds nothing to do.
	if err := n.StartAgent(context.Background(), "--health-probe-bind-address="+agentProbes); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return n.Do(func() error { return probe(t.Context(), agentProbes, "readyz") }) })
	expectClean(t)
}

func TestUninstallingWaitsForNoAgentThatIsSwept(t *testing.T) {
	counter(t, "swept", nil)
	expectReady(t, "swept", "True", v1alpha1.ReasonAllInterfacesAttached)
	x, err := get(t, "swept")
	if err != nil {
		t.Fatal(err)
	}
	// The counters first, then the operator.
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

// TestANamespaceThatIsDeletedDetaches uses a namespace of its own, in which the controller thinks it lives: the suite
// needs the other. That Kubernetes does not touch the contents for five seconds is what makes it work.
func TestANamespaceThatIsDeletedDetaches(t *testing.T) {
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

// TestTheKindsFirst: whoever deletes the CRDs deletes all that is of them, and the agents, which cannot report any more,
// detach.
func TestTheKindsFirst(t *testing.T) {
	counter(t, "kinds", nil)
	expectReady(t, "kinds", "True", v1alpha1.ReasonAllInterfacesAttached)
	withoutController(t, (*netnscluster.Process).Kill) // no matter: it could do nothing
	kinds := filepath.Join(root, "config/crd")
	if out, err := c.Kubectl(t.Context(), "delete", "--timeout=30s", "-k", kinds).CombinedOutput(); err != nil {
		t.Errorf("delete the CRDs: %v: %s", err, out)
	}
	t.Cleanup(func() { // before another controller starts
		for _, args := range [][]string{{"apply", "--server-side", "-k", kinds}, {"wait", "--for=condition=established", "crd/xdpcounters.xdp-operator.io", "crd/xdpnodestates.xdp-operator.io"}} {
			if out, err := c.Kubectl(context.Background(), args...).CombinedOutput(); err != nil {
				t.Errorf("kubectl %v: %v: %s", args, err, out)
			}
		}
		for _, n := range c.Nodes() { // one that runs finds the kinds again, but only after a while
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
