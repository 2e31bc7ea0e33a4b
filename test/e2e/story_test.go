// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// quick is a counter like the sample with a shorter interval. It makes the totals of both counters current within about a
// second, because a node reports all its counters together.
const quick = `apiVersion: xdp-operator.io/v1alpha1
kind: XDPCounter
metadata: {name: quick}
spec: {reportInterval: 1s}
`

// TestInstallToUninstall runs steps from installation to removal. Each step starts with the result of the previous one.
func TestInstallToUninstall(t *testing.T) {
	logOnFailure(t)
	var endObserving func()
	for _, step := range []struct {
		name string
		own  bool // needs a cluster of our own
		do   func(*testing.T)
	}{
		{"helm install brings up a controller and an agent per node", false, install},
		{"the sample counts on all nodes", false, applySample},
		{"the same chart and the same sample once more change nothing", false, repeat},
		{"a transfer by TCP counts as its frames on the wire", true, transfer},
		{"a counter is counting soon after kubectl apply", true, benchmark},
		{"a node that is added is counted, and keeps its share when it is removed", true, addAndRemoveNode},
		{"an upgrade and a rollback under traffic lose nothing", false, upgradeAndRollBack},
		{"two agents on each node do no harm", true, doubleAgents},
		{"helm uninstall leaves nothing on the nodes, and keeps the totals", false, uninstallAndKeep},
		{"a new installation counts on", false, installAgain},
		{"helm uninstall without crd.keep leaves nothing at all", false, func(t *testing.T) {
			endObserving()
			uninstallAll(t)
		}},
	} {
		if step.own && existing != nil {
			t.Logf("left out, since the cluster is not of our own: %s", step.name)
			continue
		}
		if !t.Run(step.name, step.do) {
			return
		}
		if endObserving == nil {
			endObserving = observe(t)
		}
	}
}

func install(t *testing.T) {
	helm(t, with(older, "install", release, chart, "--create-namespace", "--wait")...)
	helm(t, "test", release)
	for _, n := range ownNodes() {
		if programs, err := attached(n); err != nil || len(programs) > 0 {
			t.Errorf("no counter exists, but attached on %s: %v, %v", n.Name, programs, err)
		}
	}
}

func applySample(t *testing.T) {
	kubectl(t, "apply", "--filename", sample)
	applyQuick(t)
	awaitReady(t)
	for _, n := range ownNodes() {
		totals := sendAll(t, n)
		expectShare(t, n.Name, totals)
		sent = sent.Plus(totals)
	}
	expectTotals(t)
	if kinds := len(maps.Collect(sent.NonZero())); existing == nil && kinds < traffic.NumClasses/2 {
		t.Errorf("frames of %d classes were sent", kinds)
	}
	x, err := get(t.Context(), "all-nodes")
	if err != nil {
		t.Fatal(err)
	}
	n, err := countNodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := x.Status.Summary.Nodes, fmt.Sprintf("%d/%d", n, n); got != want {
		t.Errorf("summary of nodes %q, want %q", got, want)
	}
	if got, want := x.Status.Summary.Interfaces, "2/2"; existing == nil && got != want {
		t.Errorf("summary of interfaces %q, want %q", got, want)
	}
}

func applyQuick(t *testing.T) string {
	t.Helper()
	cmd := tools.Kubectl(t.Context(), "apply", "--filename", "-")
	cmd.Stdin = strings.NewReader(quick)
	return run(t, cmd)
}

// awaitReady waits with kubectl wait until all counters are Ready on the current number of nodes.
func awaitReady(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		x, err := get(t.Context(), "all-nodes")
		if err != nil {
			return err
		}
		n, err := countNodes(t.Context())
		if err != nil {
			return err
		}
		if selected := x.Status.Nodes; selected == nil || int(selected.Selected) != n {
			return fmt.Errorf("selected are %+v, want %d nodes", selected, n)
		}
		return nil
	})
	kubectl(t, "wait", "--for=condition=Ready", "--timeout=1m", "xdpcounters", "--all")
}

// installed returns all objects of the release and their pods, without the fields that Kubernetes changes.
func installed(t *testing.T) map[string]string {
	t.Helper()
	kinds := "serviceaccounts,services,roles,rolebindings,clusterroles,clusterrolebindings,deployments,daemonsets,networkpolicies," +
		"validatingadmissionpolicies,validatingadmissionpolicybindings,customresourcedefinitions"
	var list struct{ Items []map[string]any }
	out := kubectl(t, "get", kinds, "--all-namespaces", "--selector", "app.kubernetes.io/instance="+release, "--output=json")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, o := range list.Items {
		metadata := o["metadata"].(map[string]any)
		delete(o, "status")
		delete(metadata, "managedFields")
		delete(metadata, "resourceVersion")
		text, err := json.MarshalIndent(o, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		all[fmt.Sprint(o["kind"], " ", metadata["name"])] = string(text)
	}
	if len(all) < 10 {
		t.Fatalf("the release has only %v", slices.Collect(maps.Keys(all)))
	}
	pods := kubectl(t, "get", "pods", "--namespace", namespace, "--sort-by=.metadata.name",
		"--output=jsonpath={range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[*].restartCount}{\"\\n\"}{end}")
	all["pods"] = pods
	for _, name := range []string{"all-nodes", "quick"} {
		x, err := get(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		all["XDPCounter "+name] = fmt.Sprint(x.UID, x.Generation, x.Annotations)
	}
	return all
}

func repeat(t *testing.T) {
	before := installed(t)
	for range 2 {
		helm(t, with(older, "upgrade", "--install", release, chart, "--wait")...)
		for _, out := range []string{kubectl(t, "apply", "--filename", sample), applyQuick(t)} {
			if !strings.HasSuffix(strings.TrimSpace(out), "unchanged") {
				t.Errorf("kubectl apply prints %q", out)
			}
		}
		// kubectl diff fails if there is a difference.
		kubectl(t, "diff", "--filename", sample)
		if diff := cmp.Diff(before, installed(t)); diff != "" {
			t.Errorf("applying again has changed objects (-before +after):\n%s", diff)
		}
	}
	expectTotals(t)
}

func addAndRemoveNode(t *testing.T) {
	// The image is loaded before the kubelet starts, because there is no registry.
	images := filepath.Join(c.Dir(), "nodes", "n3", "images")
	if err := os.MkdirAll(images, 0o755); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(archive(older))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(images, "operator.tar"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	n3, err := c.AddNode(t.Context(), "n3", nil)
	if err != nil {
		t.Fatal(err)
	}
	awaitReady(t)
	if _, err := state(t.Context(), "n3"); err != nil {
		t.Error(err)
	}
	var share traffic.Totals
	for _, n := range c.Nodes() {
		totals := sendAll(t, n)
		sent = sent.Plus(totals)
		if n == n3 {
			share = totals
		}
	}
	expectShare(t, "n3", share)
	expectTotals(t)

	if err := n3.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := n3.DeleteObject(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if _, err := state(t.Context(), "n3"); err == nil {
			return errors.New("the state of n3 is still there")
		} else if !apierrors.IsNotFound(err) {
			return err
		}
		x, err := get(t.Context(), "all-nodes")
		if err != nil {
			return err
		}
		if x.Status.Retired == nil {
			return errors.New("nothing has retired")
		}
		return differs("the retired share", v1alpha1.TotalsOf(x.Status.Retired.Counts), share)
	})
	awaitReady(t)
	expectTotals(t)
}

// awaitVersion waits until an agent of this version has reported on every node.
func awaitVersion(t *testing.T, version string) {
	t.Helper()
	kubectl(t, "rollout", "status", "--namespace", namespace, "--timeout=2m", "daemonset/xdp-operator-agent")
	kubectl(t, "rollout", "status", "--namespace", namespace, "--timeout=2m", "deployment/xdp-operator-controller")
	for _, n := range ownNodes() {
		eventually(t, func() error {
			s, err := state(t.Context(), n.Name)
			if err != nil {
				return err
			}
			if s.Status.Agent == nil || s.Status.Agent.Version != version {
				return fmt.Errorf("the agent of %s is %+v, want version %s", n.Name, s.Status.Agent, version)
			}
			return nil
		})
	}
}

func upgradeAndRollBack(t *testing.T) {
	before := map[string]objects{}
	for _, n := range ownNodes() {
		before[n.Name] = objectsOf(t, n)
	}
	f := startFlow(t)
	awaitVersion(t, older)
	helm(t, with(newer, "upgrade", release, chart, "--wait")...)
	awaitVersion(t, newer)
	helm(t, "rollback", release, "--wait")
	awaitVersion(t, older)
	f.end(t)
	expectTotals(t)
	for _, n := range ownNodes() {
		// The link and the map are the same as before.
		if diff := cmp.Diff(before[n.Name], objectsOf(t, n)); diff != "" {
			t.Errorf("on %s (-before +after):\n%s", n.Name, diff)
		}
	}
}

// doubleAgents runs a second agent of another build on all nodes for some time.
func doubleAgents(t *testing.T) {
	first := &appsv1.DaemonSet{}
	if err := api.Get(t.Context(), types.NamespacedName{Namespace: namespace, Name: "xdp-operator-agent"}, first); err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"test": "second-agent"}
	second := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "second-agent", Namespace: namespace}, Spec: first.Spec}
	second.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
	second.Spec.Template.Labels = labels
	agent := &second.Spec.Template.Spec.Containers[0]
	// The first agent uses the host ports.
	port := intstr.FromInt32(18082)
	bpffs := slices.IndexFunc(agent.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "bpffs" })
	agent.Image, agent.Ports = "xdp-operator:"+newer, nil
	agent.Args = []string{"--health-probe-bind-address=127.0.0.1:" + port.String(), "--bpffs=" + agent.VolumeMounts[bpffs].MountPath}
	agent.LivenessProbe.HTTPGet.Port, agent.ReadinessProbe.HTTPGet.Port = port, port

	f := startFlow(t)
	if err := api.Create(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "rollout", "status", "--namespace", namespace, "--timeout=1m", "daemonset/second-agent")
	// Wait until both have reported.
	for _, version := range []string{newer, older, newer, older} {
		for _, n := range c.Nodes() {
			eventually(t, func() error {
				s, err := state(t.Context(), n.Name)
				if err != nil {
					return err
				}
				if s.Status.Agent.Version != version {
					return fmt.Errorf("on %s the agent %s does not report", n.Name, version)
				}
				return nil
			})
		}
	}
	kubectl(t, "delete", "daemonset", "second-agent", "--namespace", namespace, "--cascade=foreground", "--timeout=1m")
	f.end(t)
	expectTotals(t)
	awaitReady(t)
}

// uninstallRelease runs helm uninstall while there are counts that are not reported yet.
func uninstallRelease(t *testing.T) (had []objects, seconds float64) {
	t.Helper()
	for _, n := range ownNodes() {
		had = append(had, objectsOf(t, n))
		sent = sent.Plus(sendAll(t, n))
	}
	began := time.Now()
	helm(t, "uninstall", release, "--wait")
	return had, time.Since(began).Seconds()
}

func uninstallAndKeep(t *testing.T) {
	had, seconds := uninstallRelease(t)
	expectTotals(t)
	x, err := get(t.Context(), "all-nodes")
	if err != nil {
		t.Fatal(err)
	}
	ready := meta.FindStatusCondition(x.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.Status != metav1.ConditionUnknown || ready.Reason != v1alpha1.ReasonUninstalled {
		t.Errorf("after the operator is removed, the counter is %+v", ready)
	}
	expectNothing(t, "the chart first, its kinds and the totals are kept", seconds, had,
		"customresourcedefinition.apiextensions.k8s.io/xdpcounters.xdp-operator.io",
		"customresourcedefinition.apiextensions.k8s.io/xdpnodestates.xdp-operator.io",
		"apiservice.apiregistration.k8s.io/v1alpha1.xdp-operator.io",
		"xdpcounter.xdp-operator.io/all-nodes", "xdpcounter.xdp-operator.io/quick")
}

func installAgain(t *testing.T) {
	helm(t, with(newer, "install", release, chart, "--create-namespace", "--set=crd.keep=false", "--wait")...)
	awaitReady(t)
	for _, n := range ownNodes() {
		sent = sent.Plus(sendAll(t, n))
	}
	expectTotals(t)
}

func uninstallAll(t *testing.T) {
	had, seconds := uninstallRelease(t)
	expectNothing(t, "the chart first", seconds, had)
	for _, list := range []client.ObjectList{&v1alpha1.XDPCounterList{}, &v1alpha1.XDPNodeStateList{}} {
		if err := api.List(t.Context(), list); !apierrors.IsNotFound(err) && !meta.IsNoMatchError(err) {
			t.Errorf("%T is still served: %v", list, err)
		}
	}
}
