// SPDX-License-Identifier: Apache-2.0

// Command metricsdocs writes docs/metrics.md from the metric definitions of controller and agent, and from the alerts in
// config/prometheus. Run it in the top folder of the repository.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/xdp-operator/xdp-operator/agent"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/controllers"
	"github.com/xdp-operator/xdp-operator/internal/metric"
)

// page is the path of the document.
const page = "docs/metrics.md"

func main() {
	text, err := document(".")
	if err == nil {
		err = os.WriteFile(page, []byte(text), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "metricsdocs:", err)
		os.Exit(1)
	}
}

// rule holds the fields of an alert that the document shows.
type rule struct {
	Alert       string            `json:"alert"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// document returns the page. root is the top folder of the repository.
func document(root string) (string, error) {
	alerts, err := alerts(filepath.Join(root, "config/prometheus/rules.yaml"))
	if err != nil {
		return "", err
	}
	var out strings.Builder
	out.WriteString(introduction)
	table(&out, agent.Metrics())
	fmt.Fprintf(&out, ofAgents, agent.MaxSeries(0, 0), agent.MaxSeries(1, 10), agent.MaxSeries(1, traffic.NumClasses), traffic.NumClasses)
	table(&out, controllers.Metrics())
	fmt.Fprintf(&out, ofControllers, controllers.MaxSeries(0))
	out.WriteString("| alert | severity | after | what it says |\n|---|---|---|---|\n")
	for _, a := range alerts {
		fmt.Fprintf(&out, "| `%s` | %s | %s | %s |\n", a.Alert, a.Labels["severity"], a.For, inWords.Replace(a.Annotations["summary"]))
	}
	out.WriteString(end)
	return out.String(), nil
}

func table(out *strings.Builder, metrics []*metric.Definition) {
	out.WriteString("| metric | type, unit | labels | meaning | series |\n|---|---|---|---|---|\n")
	for _, m := range metrics {
		labels := ""
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "`, `") + "`"
		}
		fmt.Fprintf(out, "| `%s` | %s, %s | %s | %s | %s |\n", m.Name, m.Type, m.Unit, labels, m.Help, m.Series)
	}
}

// inWords replaces the template expressions that Prometheus would fill in.
var inWords = strings.NewReplacer("{{ $labels.", "*", "{{ $value | humanizeDuration", "*some time", " }}", "*")

func alerts(file string) (list []rule, err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var object struct {
		Spec struct {
			Groups []struct {
				Rules []rule `json:"rules"`
			} `json:"groups"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(raw, &object); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	for _, group := range object.Spec.Groups {
		for _, r := range group.Rules {
			if r.Alert != "" {
				list = append(list, r)
			}
		}
	}
	return list, nil
}
