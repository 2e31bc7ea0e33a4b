// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func TestSchemaRejectsMistakes(t *testing.T) {
	for values, complaint := range map[string]string{
		"agnet: {}":                                         "agnet",
		"agent: {replicas: 1}":                              "replicas",
		"agent: {toleration: []}":                           "toleration",
		"agent: {tolerations: [{kye: a}]}":                  "kye",
		"agent: {args: [--x]}":                              "args",
		"agent: {extraArgs: [x]}":                           "extraArgs",
		"agent: {resources: {limit: {}}}":                   "limit",
		"agent: {affinity: {nodeAfinity: {}}}":              "nodeAfinity",
		"agent: {bpffs: {path: sys/fs/bpf}}":                "path",
		"agent: {bpffs: {mountPropagation: Bidirectional}}": "mountPropagation",
		"agent: {capabilities: {SYS_ADMIN: true}}":          "SYS_ADMIN",
		"agent: {updateStrategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1}}}": "maxSurge",
		"agent: {updateStrategy: {type: Recreate}}":                                    "type",
		"agent: {appArmorProfile: {type: runtime/default}}":                            "type",
		"agent: {seLinuxOptions: {typ: spc_t}}":                                        "typ",
		"resourceQuota: {enable: true}":                                                "enable",
		"openshift: {securityContextConstraints: {}}":                                  "securityContextConstraints",
		"uninstall: {resources: {limit: {}}}":                                          "limit",
		"manager: {replicas: one}":                                                     "replicas",
		"manager: {serviceAccount: {name: ''}}":                                        "name",
		"manager: {env: [{name: A, val: b}]}":                                          "val",
		"image: {tag: 'a b'}":                                                          "tag",
		"image: {pullPolicy: Sometimes}":                                               "pullPolicy",
		"crd: {keep: 'no'}":                                                            "keep",
		"metrics: {port: 0}":                                                           "port",
		"metrics: {port: '8443'}":                                                      "port",
		"prometheus: {enabled: true, intervall: 1m}":                                   "intervall",
		"prometheus: {rules: {enable: true}}":                                          "enable",
		"prometheus: {rules: {enabled: true, disabled: [A]}}":                          "there is no alert A",
		"prometheus: {dashboard: {labels: {grafana_dashboard: 1}}}":                    "grafana_dashboard",
		"{prometheus: {rules: {enabled: true}}, metrics: {enabled: false}}":            "prometheus.rules.enabled needs metrics.enabled",
		"{prometheus: {dashboard: {enabled: true}}, metrics: {enabled: false}}":        "prometheus.dashboard.enabled needs metrics.enabled",
		"prometheus: {interval: 1}":                                                    "interval",
		"networkPolicy: {metricsFrom: [{namespace: {}}]}":                              "namespace",
		"uninstall: {timeoutSeconds: 0}":                                               "timeoutSeconds",
		"uninstall: {timeoutSeconds: 600}":                                             "timeoutSeconds",
		"{prometheus: {enabled: true}, metrics: {enabled: false}}":                     "prometheus.enabled needs metrics.enabled",
	} {
		if _, err := render(t, namespace, values); err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("%s: want an error about %s, got: %v", values, complaint, err)
		}
	}
	if _, err := render(t, namespace, "global: {any: thing}"); err != nil {
		t.Errorf("a chart that contains this one may have global values: %v", err)
	}
}

// TestSchemaMatchesValues finds values that are not in the schema and could not be set, and values in the schema that the
// chart does not have.
func TestSchemaMatchesValues(t *testing.T) {
	var values, schema map[string]any
	for file, into := range map[string]*map[string]any{"values.yaml": &values, "values.schema.json": &schema} {
		if err := yaml.Unmarshal([]byte(contents(t, "charts/xdp-operator/"+file)[file]), into); err != nil {
			t.Fatal(err)
		}
	}
	var compare func(path string, values, schema map[string]any)
	compare = func(path string, values, schema map[string]any) {
		properties, closed := schema["properties"].(map[string]any)
		if !closed || len(values) == 0 || strings.HasSuffix(path, ".resources") || strings.HasSuffix(path, ".rollingUpdate") || strings.HasSuffix(path, ".affinity") {
			return
		}
		if schema["additionalProperties"] != false {
			t.Errorf("%s takes anything", path)
		}
		got := slices.DeleteFunc(slices.Sorted(maps.Keys(properties)), func(name string) bool { return path == "" && name == "global" })
		expect(t, got, slices.Sorted(maps.Keys(values)))
		for name, value := range values {
			inner, _ := value.(map[string]any)
			of, _ := properties[name].(map[string]any)
			compare(path+"."+name, inner, of)
		}
	}
	compare("", values, schema)
}

func TestOptionalCapabilities(t *testing.T) {
	all, _ := helm(t, namespace, `
agent:
  capabilities: {sysResource: true, sysAdmin: true}
  appArmorProfile: {type: Localhost, localhostProfile: xdp-operator}
  seLinuxOptions: {type: spc_t}
  bpffs: {path: /run/bpf, mountPropagation: HostToContainer}
`)
	pod := agent(t, all).Spec.Template.Spec
	context := only(t, pod).SecurityContext
	expect(t, context.Capabilities, &corev1.Capabilities{
		Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"BPF", "NET_ADMIN", "PERFMON", "SYS_RESOURCE", "SYS_ADMIN"},
	})
	expect(t, context.AppArmorProfile, &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: new("xdp-operator")})
	expect(t, context.SELinuxOptions, &corev1.SELinuxOptions{Type: "spc_t"})
	expect(t, pod.Volumes[0].HostPath.Path, "/run/bpf")
	expect(t, only(t, pod).VolumeMounts, []corev1.VolumeMount{{
		Name: "bpffs", MountPath: "/bpf", MountPropagation: new(corev1.MountPropagationHostToContainer),
	}})
}

// TestSweepPermissions checks that the sweep has the capabilities of an agent, and no permissions in the API.
func TestSweepPermissions(t *testing.T) {
	const options = "agent: {capabilities: {sysAdmin: true}, appArmorProfile: {type: Unconfined}, seLinuxOptions: {type: spc_t}, bpffs: {path: /run/bpf}}"
	withOptions, _ := helm(t, namespace, options)
	for name, of := range map[string]struct{ sweep, agent objects }{
		"kustomize":         {kustomize(t, "sweep"), both(t)["kustomize"]},
		"helm":              {helmHooks(t, "pre-delete", ""), both(t)["helm"]},
		"helm with options": {helmHooks(t, "pre-delete", options), withOptions},
	} {
		t.Run(name, func(t *testing.T) {
			sweep := daemonSet(t, of.sweep, "xdp-operator-sweep").Spec.Template.Spec
			counts := agent(t, of.agent).Spec.Template.Spec
			expect(t, sweep.SecurityContext, counts.SecurityContext)
			expect(t, sweep.InitContainers[0].SecurityContext, only(t, counts).SecurityContext)
			expect(t, sweep.Volumes, counts.Volumes)
			expectBPFFS(t, sweep.InitContainers[0])
			expect(t, sweep.InitContainers[0].Args[1:], []string{"cleanup"})
			expect(t, sweep.ServiceAccountName, "xdp-operator-sweep")
			if *sweep.AutomountServiceAccountToken || len(sweep.Containers[0].VolumeMounts) > 0 || len(sweep.Containers[0].SecurityContext.Capabilities.Add) > 0 {
				t.Error("what sweeps has more than it needs")
			}
			expect(t, sweep.Tolerations, []corev1.Toleration{{Operator: corev1.TolerationOpExists}})
		})
	}
}

func TestMetricsValues(t *testing.T) {
	checked := []string{"ClusterRole xdp-operator-metrics-auth", "ClusterRoleBinding xdp-operator-metrics-auth", "ClusterRole xdp-operator-metrics-reader"}
	for values, want := range map[string]struct {
		controller, agent []string // arguments, but for the health probe's
		checked           bool
	}{
		"metrics: {enabled: false}": {},
		"metrics: {port: 1, agentPort: 2}": {
			controller: []string{"--metrics-bind-address=:1"}, agent: []string{"--metrics-bind-address=[$(NODE_IP)]:2"}, checked: true,
		},
		"metrics: {secure: false, certSecret: a}": {
			controller: []string{"--metrics-bind-address=:8443", "--metrics-secure=false"},
			agent:      []string{"--metrics-bind-address=[$(NODE_IP)]:9871", "--metrics-secure=false"},
		},
		"metrics: {certSecret: tls}": {
			controller: []string{"--metrics-bind-address=:8443", "--metrics-cert-dir=/metrics-cert"},
			agent:      []string{"--metrics-bind-address=[$(NODE_IP)]:9871", "--metrics-cert-dir=/metrics-cert"},
			checked:    true,
		},
	} {
		t.Run(values, func(t *testing.T) {
			all, _ := helm(t, namespace, values)
			c, a := controller(t, all).Spec.Template.Spec, agent(t, all).Spec.Template.Spec
			expect(t, append([]string(nil), only(t, c).Args[2:]...), want.controller)
			expect(t, append([]string(nil), only(t, a).Args[2:]...), want.agent)
			for _, key := range checked {
				if (all[key] != nil) != want.checked {
					t.Errorf("there is %s: %t", key, all[key] != nil)
				}
			}
			for _, pod := range []corev1.PodSpec{c, a} {
				mounts := slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Secret != nil && v.Secret.SecretName == "tls" })
				if mounts != strings.Contains(values, "tls") {
					t.Errorf("%s mounts the certificate: %t", pod.Containers[0].Name, mounts)
				}
				ports := slices.ContainsFunc(pod.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == "metrics" })
				if ports != (want.controller != nil) || (all["Service xdp-operator-controller-metrics"] != nil) != (want.controller != nil) {
					t.Error("the declared port of the metrics is not the one that is served")
				}
			}
		})
	}
}

func TestPrometheusAndNetworkPolicy(t *testing.T) {
	all, _ := helm(t, namespace, `
prometheus: {enabled: true, interval: 30s, labels: {release: prometheus}, tlsConfig: {serverName: a}}
networkPolicy: {enabled: true, metricsFrom: [{namespaceSelector: {matchLabels: {metrics: enabled}}}]}
`)
	for key, field := range map[string]string{"ServiceMonitor xdp-operator-controller": "endpoints", "PodMonitor xdp-operator-agent": "podMetricsEndpoints"} {
		monitor := all[key]
		if monitor == nil {
			t.Fatalf("there is no %s", key)
		}
		expect(t, monitor.GetLabels()["release"], "prometheus")
		endpoints, _, _ := unstructured.NestedSlice(monitor.Object, "spec", field)
		want := map[string]any{
			"port": "metrics", "path": "/metrics", "scheme": "https", "interval": "30s",
			"tlsConfig":     map[string]any{"serverName": "a"},
			"authorization": map[string]any{"type": "Bearer", "credentials": map[string]any{"name": "xdp-operator-metrics-reader", "key": "token"}},
		}
		if field == "podMetricsEndpoints" {
			want["relabelings"] = []any{map[string]any{"sourceLabels": []any{"__meta_kubernetes_pod_node_name"}, "targetLabel": "node"}}
		}
		expect(t, endpoints, []any{want})
	}
	expect(t, as[rbacv1.ClusterRoleBinding](t, all, "ClusterRoleBinding xdp-operator-metrics-reader").RoleRef.Name, "xdp-operator-metrics-reader")
	policy := as[networkingv1.NetworkPolicy](t, all, "NetworkPolicy xdp-operator-controller")
	expect(t, policy.Spec.PolicyTypes, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress})
	if len(policy.Spec.Ingress) != 2 || len(policy.Spec.Ingress[1].From) != 1 {
		t.Errorf("want the probes and the metrics to be let in, got %+v", policy.Spec.Ingress)
	}

	all, _ = helm(t, namespace, "")
	for key, object := range all {
		if kind := object.GetKind(); strings.HasSuffix(kind, "Monitor") || kind == "PrometheusRule" || kind == "ConfigMap" || kind == "NetworkPolicy" || kind == "Secret" || kind == "SecurityContextConstraints" {
			t.Errorf("%s comes unasked", key)
		}
	}
}

func TestDisabledFeatures(t *testing.T) {
	all, notes := helm(t, namespace, "{crd: {install: false}, admissionPolicy: {enabled: false}, uninstall: {enabled: false}}")
	for key, object := range all {
		if kind := object.GetKind(); kind == "CustomResourceDefinition" || strings.HasPrefix(kind, "ValidatingAdmission") {
			t.Errorf("there is %s", key)
		}
	}
	for _, warning := range []string{"admissionPolicy.enabled is false", "kubectl delete xdpcounters --all"} {
		if !strings.Contains(notes, warning) {
			t.Errorf("the notes do not say %q:\n%s", warning, notes)
		}
	}
}

func TestHelmTest(t *testing.T) {
	all := helmHooks(t, "test", "")
	pod := as[corev1.Pod](t, all, "Pod xdp-operator-test")
	expect(t, only(t, pod.Spec).Args, []string{"--timeout=60s", "check"})
	expect(t, only(t, pod.Spec).SecurityContext, only(t, controller(t, both(t)["helm"]).Spec.Template.Spec).SecurityContext)
	expect(t, pod.Spec.ServiceAccountName, "xdp-operator-test")
	for key := range all {
		if !strings.HasSuffix(key, " xdp-operator-test") {
			t.Errorf("%s is not of the test", key)
		}
	}
}
