// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// as converts an object to its Go type. An unknown field is an error.
func as[T any](t *testing.T, all objects, key string) T {
	t.Helper()
	var typed T
	if all[key] == nil {
		t.Fatalf("there is no %s", key)
	}
	content, err := yaml.Marshal(all[key].Object)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(content, &typed); err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return typed
}

func controller(t *testing.T, all objects) appsv1.Deployment {
	t.Helper()
	return as[appsv1.Deployment](t, all, "Deployment xdp-operator-controller")
}

func agent(t *testing.T, all objects) appsv1.DaemonSet {
	t.Helper()
	return daemonSet(t, all, "xdp-operator-agent")
}

func daemonSet(t *testing.T, all objects, name string) appsv1.DaemonSet {
	t.Helper()
	return as[appsv1.DaemonSet](t, all, "DaemonSet "+name)
}

// common removes the labels and annotations of the installer.
func common(object *unstructured.Unstructured) map[string]any {
	o := object.DeepCopy().Object
	for _, metadata := range [][]string{{"metadata"}, {"spec", "template", "metadata"}} {
		for _, label := range []string{"app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"} {
			unstructured.RemoveNestedField(o, append(metadata, "labels", label)...)
		}
		annotations, _, _ := unstructured.NestedMap(o, append(metadata, "annotations")...)
		for key := range annotations {
			if strings.HasPrefix(key, "helm.sh/") {
				delete(annotations, key)
			}
		}
		unstructured.RemoveNestedField(o, append(metadata, "annotations")...)
		if len(annotations) > 0 {
			_ = unstructured.SetNestedMap(o, annotations, append(metadata, "annotations")...)
		}
	}
	return o
}

func TestChartEqualsKustomize(t *testing.T) {
	got := map[string]map[string]map[string]any{}
	for name, all := range both(t) {
		got[name] = map[string]map[string]any{}
		for key, object := range all {
			if key != "Namespace "+namespace { // created by helm --create-namespace
				got[name][key] = common(object)
			}
		}
	}
	if diff := cmp.Diff(got["kustomize"], got["helm"]); diff != "" {
		t.Errorf("kustomize (-) and helm (+):\n%s", diff)
	}
}

func TestPrometheusObjectsEqual(t *testing.T) {
	got := map[string]map[string]map[string]any{"kustomize": {}, "helm": {}}
	for key, object := range kustomize(t, "prometheus") {
		got["kustomize"][key] = common(object)
	}
	without, _ := helm(t, namespace, "")
	with, _ := helm(t, namespace, "prometheus: {enabled: true, rules: {enabled: true}}")
	for key, object := range with {
		if without[key] == nil {
			got["helm"][key] = common(object)
		}
	}
	if diff := cmp.Diff(got["kustomize"], got["helm"]); diff != "" {
		t.Errorf("kustomize (-) and helm (+):\n%s", diff)
	}
	for key, object := range kustomize(t, "default") {
		if kind := object.GetKind(); strings.HasSuffix(kind, "Monitor") {
			t.Errorf("%s is in config/default: its kind may be missing", key)
		}
	}
}

func TestUninstallObjectsEqual(t *testing.T) {
	got := map[string]map[string]map[string]any{"kustomize": {}, "helm": {}}
	for _, folder := range []string{"uninstall", "sweep"} {
		for key, object := range kustomize(t, folder) {
			got["kustomize"][key] = common(object)
		}
	}
	weights := map[string]string{}
	for key, object := range helmHooks(t, "pre-delete", "") {
		weights[key] = object.GetAnnotations()["helm.sh/hook-weight"]
		got["helm"][key] = common(object)
	}
	// make undeploy waits itself.
	delete(got["helm"], "Job xdp-operator-swept")
	if diff := cmp.Diff(got["kustomize"], got["helm"]); diff != "" {
		t.Errorf("kustomize (-) and helm (+):\n%s", diff)
	}
	// Agents save their counts before nodes are cleaned up.
	expect(t, weights, map[string]string{
		"ServiceAccount xdp-operator-uninstall": "-10", "ClusterRole xdp-operator-uninstall": "-10", "ClusterRoleBinding xdp-operator-uninstall": "-10",
		"Role xdp-operator-uninstall": "-10", "RoleBinding xdp-operator-uninstall": "-10", "ServiceAccount xdp-operator-sweep": "-10",
		"Job xdp-operator-uninstall": "0", "DaemonSet xdp-operator-sweep": "5", "Job xdp-operator-swept": "10",
	})
	expect(t, helmHooks(t, "pre-delete", "uninstall: {enabled: false}"), objects{})
}

func TestUninstallDeadlines(t *testing.T) {
	for _, timeout := range []string{"60", "1", "90"} {
		for key, object := range helmHooks(t, "pre-delete", "uninstall: {timeoutSeconds: "+timeout+"}") {
			if object.GetKind() != "Job" {
				continue
			}
			job := as[batchv1.Job](t, objects{key: object}, key)
			seconds, _ := strconv.Atoi(timeout)
			// Helm waits for five minutes.
			if deadline := *job.Spec.ActiveDeadlineSeconds; deadline < int64(2*seconds+60) || deadline >= 300 {
				t.Errorf("%s has a deadline of %d s and a timeout of %s s", key, deadline, timeout)
			}
			if args := only(t, job.Spec.Template.Spec).Args; args[0] != "--timeout="+timeout+"s" {
				t.Errorf("%s has the arguments %q", key, args)
			}
		}
	}
}

func TestNamespaceAllowsTheAgent(t *testing.T) {
	space := as[corev1.Namespace](t, kustomize(t, "default"), "Namespace "+namespace)
	expect(t, space.Labels["pod-security.kubernetes.io/enforce"], "privileged")
}

func TestChartCopies(t *testing.T) {
	for _, copies := range []struct{ from, to string }{
		{"config/crd/bases/*.yaml", "charts/xdp-operator/files/crds/*.yaml"},
		{"config/rbac/*_role.yaml", "charts/xdp-operator/files/rbac/*.yaml"},
		{"config/uninstall/*_role.yaml", "charts/xdp-operator/files/uninstall/*.yaml"},
		{"config/admission/[^k]*.yaml", "charts/xdp-operator/files/admission/*.yaml"},
	} {
		from, to := contents(t, copies.from), contents(t, copies.to)
		if len(from) == 0 {
			t.Errorf("there are no %s", copies.from)
		}
		if diff := cmp.Diff(from, to); diff != "" {
			t.Errorf("%s (-) and %s (+), make manifests copies them:\n%s", copies.from, copies.to, diff)
		}
	}
}

// contents returns the content of the files of the repository that match, by base name.
func contents(t *testing.T, pattern string) map[string]string {
	t.Helper()
	fresh(t)
	paths, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(path)] = string(content)
	}
	return files
}

func TestControllerSecurityContext(t *testing.T) {
	for name, all := range both(t) {
		t.Run(name, func(t *testing.T) {
			pod := controller(t, all).Spec.Template.Spec
			expect(t, pod.SecurityContext, &corev1.PodSecurityContext{
				RunAsNonRoot:   new(true),
				RunAsUser:      new(int64(65532)),
				RunAsGroup:     new(int64(65532)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			})
			expect(t, only(t, pod).SecurityContext, &corev1.SecurityContext{
				Privileged:               new(false),
				AllowPrivilegeEscalation: new(false),
				ReadOnlyRootFilesystem:   new(true),
				Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			})
			if pod.HostNetwork || pod.HostPID || pod.HostIPC || len(pod.Volumes) > 0 {
				t.Error("the pod has a part in the node")
			}
		})
	}
}

func TestAgentSecurityContext(t *testing.T) {
	for name, all := range both(t) {
		t.Run(name, func(t *testing.T) {
			pod := agent(t, all).Spec.Template.Spec
			expect(t, pod.SecurityContext, &corev1.PodSecurityContext{
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			})
			container := only(t, pod)
			expect(t, container.SecurityContext, &corev1.SecurityContext{
				RunAsUser:                new(int64(0)),
				RunAsGroup:               new(int64(0)),
				Privileged:               new(false),
				AllowPrivilegeEscalation: new(false),
				ReadOnlyRootFilesystem:   new(true),
				Capabilities: &corev1.Capabilities{
					Drop: []corev1.Capability{"ALL"},
					Add:  []corev1.Capability{"BPF", "NET_ADMIN", "PERFMON"},
				},
			})
			if !pod.HostNetwork || pod.HostPID || pod.HostIPC {
				t.Error("of the node's namespaces the pod needs the network, and no other")
			}
			expect(t, pod.Volumes, []corev1.Volume{{Name: "bpffs", VolumeSource: corev1.VolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: "/sys/fs/bpf", Type: new(corev1.HostPathDirectory)},
			}}})
			expectBPFFS(t, container)
			expect(t, pod.Tolerations, []corev1.Toleration{{Operator: corev1.TolerationOpExists}})
		})
	}
}

// expectBPFFS checks that the container uses the node's BPF file system outside /sys and /proc, where the default AppArmor
// profile of containerd denies writing.
func expectBPFFS(t *testing.T, container corev1.Container) {
	t.Helper()
	expect(t, container.VolumeMounts, []corev1.VolumeMount{
		{Name: "bpffs", MountPath: "/bpf"},
	})
	expect(t, container.Args[0], "--bpffs=/bpf")
}

func TestProbeAddresses(t *testing.T) {
	for name, all := range both(t) {
		t.Run(name, func(t *testing.T) {
			for _, pod := range []corev1.PodSpec{controller(t, all).Spec.Template.Spec, agent(t, all).Spec.Template.Spec} {
				container := only(t, pod)
				host, port := "", ""
				for _, arg := range container.Args {
					if address, ok := strings.CutPrefix(arg, "--health-probe-bind-address="); ok {
						var err error
						if host, port, err = net.SplitHostPort(address); err != nil {
							t.Fatal(err)
						}
					}
				}
				if pod.HostNetwork && host != "127.0.0.1" {
					t.Errorf("%s listens at %q in the node's network", container.Name, host)
				}
				for want, probe := range map[string]*corev1.Probe{"/healthz": container.LivenessProbe, "/readyz": container.ReadinessProbe} {
					ask := probe.HTTPGet
					number := ask.Port.String()
					for _, p := range container.Ports {
						if p.Name == number {
							number = strconv.Itoa(int(p.ContainerPort))
						}
					}
					if ask.Host != host || number != port || ask.Path != want {
						t.Errorf("%s listens at %s:%s, the probe asks %s:%s%s, want %s", container.Name, host, port, ask.Host, number, ask.Path, want)
					}
				}
			}
		})
	}
}

func TestRoles(t *testing.T) {
	const group = "xdp-operator.io"
	for name, all := range both(t) {
		t.Run(name, func(t *testing.T) {
			expect(t, as[rbacv1.ClusterRole](t, all, "ClusterRole xdp-operator-agent").Rules, []rbacv1.PolicyRule{
				{APIGroups: []string{group}, Resources: []string{"xdpnodestates"}, Verbs: []string{"get", "list", "watch"}},
				{APIGroups: []string{group}, Resources: []string{"xdpnodestates/status"}, Verbs: []string{"update"}},
			})
			for key, object := range all {
				if object.GetKind() != "ClusterRole" && object.GetKind() != "Role" {
					continue
				}
				for _, rule := range as[rbacv1.ClusterRole](t, all, key).Rules {
					for _, word := range slices.Concat(rule.Verbs, rule.Resources, rule.APIGroups, rule.NonResourceURLs) {
						if strings.Contains(word, "*") || word == "secrets" || word == "pods" {
							t.Errorf("%s has %q", key, word)
						}
					}
				}
			}
		})
	}
}

func TestValues(t *testing.T) {
	all, notes := helm(t, "elsewhere", `
image: {repository: example/xdp-operator, tag: v9, pullPolicy: Always, pullSecrets: [{name: key}]}
manager:
  replicas: 2
  extraArgs: [--status-interval=1s]
  resources: {limits: {memory: 1Gi}}
  nodeSelector: {pool: infra}
  tolerations: [{key: infra, operator: Exists}]
  affinity: {nodeAffinity: {}}
  priorityClassName: system-cluster-critical
agent:
  extraArgs: [--zap-log-level=debug]
  resources: {limits: {memory: 1Gi}}
  nodeSelector: {pool: edge}
  tolerations: []
  affinity: {nodeAffinity: null, podAffinity: {}}
  priorityClassName: ""
  updateStrategy: {type: OnDelete, rollingUpdate: null}
crd: {keep: false}
`)
	deployment, daemonSet := controller(t, all), agent(t, all)
	expect(t, *deployment.Spec.Replicas, 2)
	expect(t, deployment.Spec.Template.Spec.PriorityClassName, "system-cluster-critical")
	expect(t, deployment.Spec.Template.Spec.Tolerations, []corev1.Toleration{{Key: "infra", Operator: corev1.TolerationOpExists}})
	expect(t, deployment.Spec.Template.Spec.NodeSelector, map[string]string{"kubernetes.io/os": "linux", "pool": "infra"})
	expect(t, daemonSet.Spec.Template.Spec.PriorityClassName, "")
	expect(t, daemonSet.Spec.Template.Spec.Tolerations, nil)
	expect(t, daemonSet.Spec.Template.Spec.NodeSelector, map[string]string{"kubernetes.io/os": "linux", "pool": "edge"})
	expect(t, daemonSet.Spec.UpdateStrategy, appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType})
	for _, pod := range []corev1.PodSpec{deployment.Spec.Template.Spec, daemonSet.Spec.Template.Spec} {
		container := only(t, pod)
		expect(t, container.Image, "example/xdp-operator:v9")
		expect(t, container.ImagePullPolicy, corev1.PullAlways)
		expect(t, container.Resources.Limits.Memory().String(), "1Gi")
		expect(t, pod.ImagePullSecrets, []corev1.LocalObjectReference{{Name: "key"}})
	}
	expect(t, deployment.Spec.Template.Spec.Affinity, &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{}})
	expect(t, daemonSet.Spec.Template.Spec.Affinity, &corev1.Affinity{PodAffinity: &corev1.PodAffinity{}})
	expect(t, only(t, deployment.Spec.Template.Spec).Args,
		[]string{"--leader-elect", "--health-probe-bind-address=:8081", "--metrics-bind-address=:8443", "--status-interval=1s"})
	expect(t, only(t, daemonSet.Spec.Template.Spec).Args,
		[]string{"--bpffs=/bpf", "--health-probe-bind-address=127.0.0.1:8082", "--metrics-bind-address=[$(NODE_IP)]:9871", "--zap-log-level=debug"})

	for key, object := range all {
		switch kind := object.GetKind(); kind {
		case "CustomResourceDefinition":
			expect(t, object.GetAnnotations()["helm.sh/resource-policy"], "")
		case "ClusterRoleBinding", "RoleBinding":
			for _, subject := range as[rbacv1.ClusterRoleBinding](t, all, key).Subjects {
				expect(t, subject.Namespace, "elsewhere")
			}
		case "ServiceAccount", "Role", "Deployment", "DaemonSet":
			expect(t, object.GetNamespace(), "elsewhere")
		}
	}
	if want := "kubectl -n elsewhere rollout status daemonset/xdp-operator-agent"; !strings.Contains(notes, want) {
		t.Errorf("the notes do not have %q:\n%s", want, notes)
	}

	all, _ = helm(t, namespace, "image: {tag: v9, digest: 'sha256:0123'}")
	expect(t, only(t, agent(t, all).Spec.Template.Spec).Image, "xdp-operator@sha256:0123")
}

func TestCRDsAreKept(t *testing.T) {
	all, _ := helm(t, namespace, "")
	for key, object := range all {
		want := ""
		if object.GetKind() == "CustomResourceDefinition" {
			want = "keep"
		}
		if got := object.GetAnnotations()["helm.sh/resource-policy"]; got != want {
			t.Errorf("%s has resource policy %q, want %q", key, got, want)
		}
	}
}

// TestReadmeIsCurrent generates the README with helm-docs, as make manifests does, and compares it.
func TestReadmeIsCurrent(t *testing.T) {
	docs := exec.CommandContext(t.Context(), "go", "tool", "helm-docs", "--log-level=error", "--dry-run", "--chart-search-root="+root+"/charts",
		"--sort-values-order=file")
	docs.Stderr = t.Output()
	want, err := docs.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := contents(t, "charts/xdp-operator/README.md")["README.md"]
	if diff := cmp.Diff(strings.TrimSpace(string(want)), strings.TrimSpace(got)); diff != "" {
		t.Errorf("README.md is not (+) what make manifests writes (-):\n%s", diff)
	}
}

func TestReadmeHasEveryValue(t *testing.T) {
	values := map[string]any{}
	if err := yaml.Unmarshal([]byte(contents(t, "charts/xdp-operator/values.yaml")["values.yaml"]), &values); err != nil {
		t.Fatal(err)
	}
	readme := contents(t, "charts/xdp-operator/README.md")["README.md"]
	schema := map[string]any{}
	if err := yaml.Unmarshal([]byte(contents(t, "charts/xdp-operator/values.schema.json")["values.schema.json"]), &schema); err != nil {
		t.Fatal(err)
	}
	for path, value := range leaves(values, schema) {
		want, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		row := "\n| `" + path + "` | `" + string(want) + "` | "
		if _, meaning, ok := strings.Cut(readme, row); !ok || strings.HasPrefix(meaning, "|") || strings.HasPrefix(meaning, " ") {
			t.Errorf("README.md has no line that begins with %s and has a description", row)
		}
	}
}

// leaves returns the values by path. An object is a value if the schema does not list its fields, or if it is a Kubernetes
// type.
func leaves(values, schema map[string]any) map[string]any {
	all := map[string]any{}
	for name, value := range values {
		properties, _ := schema["properties"].(map[string]any)
		inner, _ := properties[name].(map[string]any)
		section, isSection := value.(map[string]any)
		if _, described := inner["properties"]; !isSection || !described || len(section) == 0 || slices.Contains([]string{"resources", "updateStrategy", "affinity"}, name) {
			all[name] = value
			continue
		}
		for path, leaf := range leaves(section, inner) {
			all[name+"."+path] = leaf
		}
	}
	return all
}

func expect[T any](t *testing.T, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}

// only returns the only container of the pod.
func only(t *testing.T, pod corev1.PodSpec) corev1.Container {
	t.Helper()
	if len(pod.InitContainers) != 0 || len(pod.Containers) != 1 {
		t.Fatalf("the pod has %d init containers and %d containers", len(pod.InitContainers), len(pod.Containers))
	}
	return pod.Containers[0]
}
