// SPDX-License-Identifier: Apache-2.0

// Package scrape reads collectors as a Prometheus does.
package scrape

import (
	"bytes"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/xdp-operator/xdp-operator/test/util/golden"
)

// Families returns the metrics of the collector, checked as the library checks it: no series twice, every label UTF-8.
func Families(t testing.TB, c prometheus.Collector) []*dto.MetricFamily {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// Series returns the number of series of the collector.
func Series(t testing.TB, c prometheus.Collector) (n int) {
	t.Helper()
	for _, f := range Families(t, c) {
		n += len(f.GetMetric())
	}
	return n
}

// Check compares the text that a Prometheus would read with the golden file, and asks promlint for what is wrong with it.
func Check(t testing.TB, file string, c prometheus.Collector) {
	t.Helper()
	var text bytes.Buffer
	for _, f := range Families(t, c) {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	golden.Check(t, file, text.String())
	problems, err := promlint.New(&text).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%s: %v, %v", file, problems, err)
	}
}
