// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"context"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// podsOf returns a pod of each object that makes pods, by the object's key.
func podsOf(t *testing.T, all objects) map[string]*corev1.Pod {
	t.Helper()
	pods := map[string]*corev1.Pod{}
	for key, object := range all {
		_, isPod, _ := unstructured.NestedSlice(object.Object, "spec", "containers")
		template, hasTemplate, _ := unstructured.NestedMap(object.Object, "spec", "template")
		switch {
		case isPod:
			pod := as[corev1.Pod](t, all, key)
			pods[key] = &pod
		case hasTemplate:
			made := &unstructured.Unstructured{Object: template}
			pod := as[corev1.Pod](t, objects{key: made}, key)
			pod.Name, pod.Namespace = object.GetName(), object.GetNamespace()
			pods[key] = &pod
		}
	}
	return pods
}

// inNamespace makes the namespace and the service accounts among the objects for the duration of the test.
func (s *server) inNamespace(t *testing.T, name string, all objects) *installed {
	t.Helper()
	admin, err := client.New(s.Config(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := &installed{Client: admin, config: s.Config(), namespace: name}
	c.make(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	s.apply(t, all.accounts())
	return c
}

// refusals asks the API server to admit the pods, without making them, and returns its errors by the pods' keys.
func (c *installed) refusals(t *testing.T, pods map[string]*corev1.Pod) map[string]string {
	t.Helper()
	refused := map[string]string{}
	for key, pod := range pods {
		if err := c.Create(t.Context(), pod.DeepCopy(), client.DryRunAll); err != nil {
			refused[key] = err.Error()
		}
	}
	return refused
}

// quota makes a quota and waits until its limits are in force.
func (c *installed) quota(t *testing.T, quota *corev1.ResourceQuota) {
	t.Helper()
	c.make(t, quota)
	await(t, func() error {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(quota), quota); err != nil {
			return err
		}
		if len(quota.Status.Hard) != len(quota.Spec.Hard) {
			return fmt.Errorf("the quota is not in force yet: %v", quota.Status)
		}
		return nil
	})
}

// TestCriticalPodsOnGKE asks an API server that is configured as that of GKE.
func TestCriticalPodsOnGKE(t *testing.T) {
	const space, why = "gke", "insufficient quota to match these scopes: [{PriorityClass In [system-node-critical system-cluster-critical]}]"
	all, _ := helmWithHooks(t, space, "manager: {priorityClassName: system-cluster-critical}")
	c, pods := apiServer(t).inNamespace(t, space, all), podsOf(t, all)
	without := c.refusals(t, pods)
	for _, key := range []string{"DaemonSet xdp-operator-agent", "DaemonSet xdp-operator-sweep", "Deployment xdp-operator-controller"} {
		if !strings.Contains(without[key], why) {
			t.Errorf("%s without a quota: want %q, got %q", key, why, without[key])
		}
		delete(without, key)
	}
	expect(t, without, map[string]string{})

	quota := as[corev1.ResourceQuota](t, all, "ResourceQuota xdp-operator-critical-pods")
	c.quota(t, &quota)
	expect(t, c.refusals(t, pods), map[string]string{})
}

// TestQuotaDemandsResources asks for all pods in a namespace with a quota, which refuses containers without resources.
func TestQuotaDemandsResources(t *testing.T) {
	const space = "demanding"
	all, _ := helmWithHooks(t, space, "{agent: {priorityClassName: ''}}")
	c, pods := apiServer(t).inNamespace(t, space, all), podsOf(t, all)
	c.quota(t, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "demanding", Namespace: space},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
			corev1.ResourceRequestsCPU: resource.MustParse("10"), corev1.ResourceRequestsMemory: resource.MustParse("10Gi"),
			corev1.ResourceLimitsMemory: resource.MustParse("10Gi"),
		}},
	})
	expect(t, c.refusals(t, pods), map[string]string{})
	if len(pods) != 6 {
		t.Errorf("there are %d pods", len(pods))
	}
}

// TestDaemonSetNodes checks with the controller of DaemonSets that none waits for a pod on a node where it cannot run.
// helm --wait would wait for it too.
func TestDaemonSetNodes(t *testing.T) {
	all := kustomize(t, "default")
	c := install(t, all, namespace)
	for name, labels := range map[string]map[string]string{
		"ordinary": {"kubernetes.io/os": "linux"},
		"auto":     {"kubernetes.io/os": "linux", "eks.amazonaws.com/compute-type": "auto", "type": "ordinary"},
		"fargate":  {"kubernetes.io/os": "linux", "eks.amazonaws.com/compute-type": "fargate"},
		"virtual":  {"kubernetes.io/os": "linux", "type": "virtual-kubelet"},
		"windows":  {"kubernetes.io/os": "windows"},
	} {
		c.make(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
	}
	sweep := kustomize(t, "sweep")
	apiServer(t).apply(t, sweep)
	t.Cleanup(func() {
		for key, object := range sweep {
			if err := c.Delete(context.Background(), object); client.IgnoreNotFound(err) != nil {
				t.Errorf("%s: %v", key, err)
			}
		}
	})
	for _, name := range []string{"xdp-operator-agent", "xdp-operator-sweep"} {
		await(t, func() error {
			var set appsv1.DaemonSet
			if err := c.Get(t.Context(), types.NamespacedName{Namespace: namespace, Name: name}, &set); err != nil {
				return err
			}
			// The pods are also the proof that the quota works for a DaemonSet.
			if set.Status.DesiredNumberScheduled != 2 || set.Status.CurrentNumberScheduled != 2 {
				return fmt.Errorf("%s: want pods on the nodes ordinary and auto, got %+v", name, set.Status)
			}
			return nil
		})
	}
}

// TestReinstallElsewhere installs under another name or in another namespace while the CRDs of an earlier release are kept.
func TestReinstallElsewhere(t *testing.T) {
	s := apiServer(t)
	c, err := client.New(s.Config(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tryInstall := func(name, namespace string, flags ...string) error {
		return s.helm(t, append([]string{"install", name, chart, "--namespace", namespace, "--create-namespace"}, flags...)...)
	}
	uninstall := func(name, namespace string) {
		t.Helper()
		// The hooks need nodes.
		if err := s.helm(t, "uninstall", name, "--namespace", namespace, "--no-hooks"); err != nil {
			t.Fatal(err)
		}
	}
	// The CRDs of this API server were not installed by Helm.
	if err := tryInstall("first", "first", "--take-ownership"); err != nil {
		t.Fatal(err)
	}
	counter := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "xdp-operator.io/v1alpha1", "kind": "XDPCounter", "metadata": map[string]any{"name": "kept"}, "spec": map[string]any{},
	}}
	if err := c.Create(t.Context(), counter); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Delete(context.Background(), counter); err != nil {
			t.Error(err)
		}
	})
	counter.Object["status"] = map[string]any{"total": map[string]any{"packets": int64(7), "bytes": int64(420)}}
	if err := c.Status().Update(t.Context(), counter); err != nil {
		t.Fatal(err)
	}
	uninstall("first", "first")

	for _, release := range []struct{ name, namespace, why string }{
		{"first", "second", `"meta.helm.sh/release-namespace" must equal "second": current value is "first"`},
		{"second", "second", `"meta.helm.sh/release-name" must equal "second": current value is "first"`},
	} {
		t.Run(release.name+" in "+release.namespace, func(t *testing.T) {
			err := tryInstall(release.name, release.namespace)
			if err == nil || !strings.Contains(err.Error(), "invalid ownership metadata") || !strings.Contains(err.Error(), release.why) {
				t.Errorf("want invalid ownership metadata: %s, got: %v", release.why, err)
			}
			if err := tryInstall(release.name, release.namespace, "--take-ownership"); err != nil {
				t.Fatal(err)
			}
			kept := counter.DeepCopy()
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(counter), kept); err != nil {
				t.Fatal(err)
			}
			expect(t, kept.Object, counter.Object)
			uninstall(release.name, release.namespace)
		})
	}
	for _, space := range []string{"first", "second"} {
		if err := c.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: space}}); err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	}
}
