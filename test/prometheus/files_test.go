// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const root = "../.."

// rules returns the rules file in the spec of config/prometheus/rules.yaml.
func rules(t *testing.T) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, "config/prometheus/rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var object struct{ Spec map[string]any }
	if err := yaml.Unmarshal(raw, &object); err != nil {
		t.Fatal(err)
	}
	groups, err := yaml.Marshal(object.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return groups
}

// alerts returns the names of the alerts in a file of rules.
func alerts(t *testing.T, file []byte) (names []string) {
	t.Helper()
	var of struct {
		Groups []struct{ Rules []struct{ Alert string } }
	}
	if err := yaml.Unmarshal(file, &of); err != nil {
		t.Fatal(err)
	}
	for _, group := range of.Groups {
		for _, rule := range group.Rules {
			if rule.Alert != "" {
				names = append(names, rule.Alert)
			}
		}
	}
	return names
}

// squeezed maps the durations of the rules to shorter ones, for a run of two minutes.
var squeezed = map[string]string{"1d": "60s", "1h": "20s", "15m": "15s", "10m": "5s", "5m": "5s", "1m": "2s"}

var duration = regexp.MustCompile(`\b\d+[smhd]\b`)

// squeeze replaces the durations of the rules by shorter ones. promtool tests the real ones.
func squeeze(t *testing.T, file []byte) []byte {
	t.Helper()
	fast := duration.ReplaceAllStringFunc(string(file), func(d string) string {
		short, ok := squeezed[strings.TrimSuffix(d, "0s")]
		if !ok {
			t.Errorf("rules.yaml has the duration %s, which has no shorter duration for this test", d)
		}
		return short
	})
	const heartbeat = "_interval_seconds), 60)"
	if strings.Count(fast, heartbeat) != 1 {
		t.Errorf("rules.yaml does not have %q once", heartbeat)
	}
	return []byte(strings.Replace(fast, heartbeat, "_interval_seconds), 3)", 1))
}

// panel is a panel of the dashboard with its queries.
type panel struct {
	Title   string
	Type    string
	Targets []struct {
		Expr         string
		LegendFormat string
	}
	FieldConfig struct{ Defaults struct{ Unit string } }
}

// panels returns the panels of config/prometheus/dashboard.json that show data, with all nodes and interfaces selected.
func panels(t *testing.T) (list []panel) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, "config/prometheus/dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct{ Panels []panel }
	if err := json.Unmarshal(raw, &dashboard); err != nil {
		t.Fatal(err)
	}
	chosen := strings.NewReplacer("$__rate_interval", "5s", "$__range", "60s", "$node", ".*", "$interface", ".*")
	for _, p := range dashboard.Panels {
		for i := range p.Targets {
			p.Targets[i].Expr = chosen.Replace(p.Targets[i].Expr)
			if strings.Contains(p.Targets[i].Expr, "$") {
				t.Errorf("panel %q uses an unknown variable: %s", p.Title, p.Targets[i].Expr)
			}
		}
		if p.Type != "row" {
			list = append(list, p)
		}
	}
	return list
}

func write(t *testing.T, content []byte, path ...string) string {
	t.Helper()
	file := filepath.Join(path...)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(fmt.Errorf("write a file of the test: %w", err))
	}
	return file
}
