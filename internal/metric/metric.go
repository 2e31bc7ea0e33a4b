// Package metric is what controller and agent say of a metric before it has a value: its name and meaning, and how many
// series it can become. docs/metrics.md is written from it.
package metric

import (
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Definition is one metric. Counter and Gauge make it.
type Definition struct {
	Name   string   // ends in its unit, and in _total if it is a counter
	Type   string   // "counter" or "gauge"
	Help   string   // what a value is, one sentence
	Labels []string // in the order in which With takes their values
	Unit   string   // for people: "packets", "bytes", "seconds", "1" of a fact that holds or not
	Series string   // how many series one process serves of it, in words

	desc *prometheus.Desc
	of   prometheus.ValueType
}

// Counter defines a metric that only grows, but for a new start of what it counts.
func Counter(name, unit, help, series string, labels ...string) *Definition {
	return define(Definition{Name: name, Type: "counter", of: prometheus.CounterValue, Unit: unit, Help: help, Series: series, Labels: labels})
}

// Gauge defines a metric that goes up and down.
func Gauge(name, unit, help, series string, labels ...string) *Definition {
	return define(Definition{Name: name, Type: "gauge", of: prometheus.GaugeValue, Unit: unit, Help: help, Series: series, Labels: labels})
}

func define(d Definition) *Definition {
	d.desc = prometheus.NewDesc(d.Name, d.Help, d.Labels, nil)
	return &d
}

// Desc returns the definition as the Prometheus library has it.
func (d *Definition) Desc() *prometheus.Desc { return d.desc }

// With returns a value with the labels' values. What is not UTF-8, as names of interfaces need not be, is written as
// \xNN: Prometheus would refuse it, and all else with it.
func (d *Definition) With(value float64, labels ...string) prometheus.Metric {
	for i := range labels {
		labels[i] = printable(labels[i])
	}
	return prometheus.MustNewConstMetric(d.desc, d.of, value, labels...)
}

func printable(s string) string {
	if valid := strings.ToValidUTF8(s, ""); valid == s {
		return s
	}
	var out strings.Builder
	for i, r := range s {
		if r == '\uFFFD' && s[i] != "\uFFFD"[0] {
			fmt.Fprintf(&out, `\x%02x`, s[i])
			continue
		}
		out.WriteRune(r)
	}
	return out.String()
}

// Bool returns 1 for true and 0 for false.
func Bool(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Results are the values of a label result, which says what came of a write.
var Results = []string{"success", "conflict", "error"}

// Result returns which of Results an answer of the API server is. A conflict is a write that was based on something old,
// the object being another one, there already or gone; it is tried again.
func Result(err error) string {
	switch {
	case err == nil:
		return Results[0]
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
		return Results[1]
	default:
		return Results[2]
	}
}
