// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// alerts returns the rules of a PrometheusRule by the name of the alert or of what they record.
func alerts(t *testing.T, all objects) (rules map[string]map[string]any) {
	t.Helper()
	object := all["PrometheusRule xdp-operator"]
	if object == nil {
		t.Fatal("there is no PrometheusRule")
	}
	rules = map[string]map[string]any{}
	groups, _, err := unstructured.NestedSlice(object.Object, "spec", "groups")
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range groups {
		g, _ := group.(map[string]any)
		list, _ := g["rules"].([]any)
		for _, rule := range list {
			r, _ := rule.(map[string]any)
			for _, key := range []string{"alert", "record"} {
				if name, ok := r[key].(string); ok {
					rules[name] = r
				}
			}
		}
	}
	return rules
}

func TestRules(t *testing.T) {
	file := objects{}
	for name, content := range contents(t, "config/prometheus/rules.yaml") {
		file.add(t, name, content)
	}
	want := alerts(t, file)
	all, _ := helm(t, namespace, "prometheus: {rules: {enabled: true}}")
	expect(t, alerts(t, all), want)

	all, _ = helm(t, namespace, `
prometheus:
  rules: {enabled: true, labels: {release: prometheus}, alertLabels: {team: network, severity: page}, disabled: [XDPCounterGenericMode]}
`)
	expect(t, all["PrometheusRule xdp-operator"].GetLabels()["release"], "prometheus")
	delete(want, "XDPCounterGenericMode")
	for _, rule := range want {
		if rule["alert"] != nil {
			rule["labels"] = map[string]any{"team": "network", "severity": "page"}
		}
	}
	expect(t, alerts(t, all), want)
}

func TestDashboard(t *testing.T) {
	all, _ := helm(t, namespace, "prometheus: {dashboard: {enabled: true, annotations: {grafana_folder: Network}}}")
	dashboard := as[corev1.ConfigMap](t, all, "ConfigMap xdp-operator-dashboard")
	expect(t, dashboard.Labels["grafana_dashboard"], "1")
	expect(t, dashboard.Annotations, map[string]string{"grafana_folder": "Network"})

	var got, want any
	if err := json.Unmarshal([]byte(dashboard.Data["xdp-operator.json"]), &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(contents(t, "config/prometheus/dashboard.json")["dashboard.json"]), &want); err != nil {
		t.Fatal(err)
	}
	expect(t, got, want)

	all, _ = helm(t, namespace, "prometheus: {dashboard: {enabled: true, labels: {grafana_dashboard: null, mine: yes-please}}}")
	labels := as[corev1.ConfigMap](t, all, "ConfigMap xdp-operator-dashboard").Labels
	if _, ok := labels["grafana_dashboard"]; ok || labels["mine"] != "yes-please" {
		t.Errorf("labels %v", labels)
	}
}
