// SPDX-License-Identifier: Apache-2.0

// Package metric defines metrics of the controller and the agent: name, meaning and number of series. docs/metrics.md is
// generated from the definitions.
package metric

import (
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Definition defines a metric. Counter and Gauge return one.
type Definition struct {
	Name   string   // ends in the unit, or in _total for a counter
	Type   string   // "counter" or "gauge"
	Help   string   // what the value means, in one sentence
	Labels []string // in the order of the arguments of With
	Unit   string   // for documentation: "packets", "bytes", "seconds", or "1" for a value of 0 or 1
	Series string   // for documentation: how many series one process has

	desc *prometheus.Desc
	of   prometheus.ValueType
}

// Counter defines a metric that only increases until what it counts is restarted.
func Counter(name, unit, help, series string, labels ...string) *Definition {
	return define(Definition{Name: name, Type: "counter", of: prometheus.CounterValue, Unit: unit, Help: help, Series: series, Labels: labels})
}

// Gauge defines a metric that increases and decreases.
func Gauge(name, unit, help, series string, labels ...string) *Definition {
	return define(Definition{Name: name, Type: "gauge", of: prometheus.GaugeValue, Unit: unit, Help: help, Series: series, Labels: labels})
}

func define(d Definition) *Definition {
	d.desc = prometheus.NewDesc(d.Name, d.Help, d.Labels, nil)
	return &d
}

// Desc returns the definition for the Prometheus library.
func (d *Definition) Desc() *prometheus.Desc { return d.desc }

// With returns the metric with a value and the values of its labels. Bytes that are not UTF-8, which names of interfaces may
// contain, are written as \xNN. Otherwise Prometheus would reject the whole scrape.
func (d *Definition) With(value float64, labels ...string) prometheus.Metric {
	for i := range labels {
		labels[i] = printable(labels[i])
	}
	return prometheus.MustNewConstMetric(d.desc, d.of, value, labels...)
}

// printable replaces bytes that are not UTF-8.
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

// Results are the values of the label "result" of metrics that count writes.
var Results = []string{"success", "conflict", "error"}

// Result returns the element of Results for the error of a write to the API server. A conflict is a write that was based on
// an outdated object: it was changed, created or deleted in the meantime. Conflicts are retried.
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
