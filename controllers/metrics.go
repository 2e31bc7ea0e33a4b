// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/internal/metric"
)

// The metrics of a controller, in addition to those of controller-runtime.
var (
	nodesSelected = metric.Gauge("xdpcounter_nodes_selected", "nodes",
		"Nodes that the XDPCounter selects.", "1 per XDPCounter", "xdpcounter")
	nodesReady = metric.Gauge("xdpcounter_nodes_ready", "nodes",
		"Selected nodes whose agent reports in time and counts every selected interface.", "1 per XDPCounter", "xdpcounter")
	nodesFailed = metric.Gauge("xdpcounter_nodes_failed", "nodes",
		"Selected nodes that have an interface that cannot be counted, or whose agent does not report in time.", "1 per XDPCounter", "xdpcounter")
	reportInterval = metric.Gauge("xdpcounter_report_interval_seconds", "seconds",
		"Interval at which agents report for the XDPCounter: spec.reportInterval, or longer to stay within the write budget.", "1 per XDPCounter", "xdpcounter")
	oldestReport = metric.Gauge("xdpcounter_oldest_report_age_seconds", "seconds",
		"Age of the oldest of the latest reports of all nodes that count for the XDPCounter. For a node that has not reported yet, the age of its XDPNodeState.",
		"1 per XDPCounter for which a node counts", "xdpcounter")
	nodeStateWrites = metric.Counter("xdpcounter_node_state_writes_total", "writes",
		"Writes of XDPNodeStates since the controller started, by operation and result: success, conflict (retried), error.",
		"at most 9", "operation", "result")
)

// Metrics lists the metrics of a controller, in the order of docs/metrics.md.
func Metrics() []*metric.Definition {
	return []*metric.Definition{nodesSelected, nodesReady, nodesFailed, reportInterval, oldestReport, nodeStateWrites}
}

// maxFixedSeries is the maximum number of series of a controller without XDPCounters.
const maxFixedSeries = 9

// MaxSeries returns the maximum number of series of a controller with the given number of XDPCounters.
func MaxSeries(counters int) int { return 5*counters + maxFixedSeries }

// Collector implements prometheus.Collector for a controller. It reads the caches at each scrape. All replicas return the
// same values for the XDPCounters.
type Collector struct {
	Reader client.Reader // of the caches
	States *NodeStateReconciler
	Clock  clock.PassiveClock
}

// scrapeTimeout is how long a scrape waits for caches that are not synced yet.
const scrapeTimeout = time.Second

// Describe implements prometheus.Collector.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range Metrics() {
		descs <- m.Desc()
	}
}

// Collect implements prometheus.Collector. Metrics for which the caches have no data yet are left out.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	counters := &v1alpha1.XDPCounterList{}
	states := &v1alpha1.XDPNodeStateList{}
	if c.Reader.List(ctx, counters, client.UnsafeDisableDeepCopy) == nil && c.Reader.List(ctx, states, client.UnsafeDisableDeepCopy) == nil {
		for _, m := range ofCounters(counters.Items, states.Items, c.Clock.Now()) {
			metrics <- m
		}
	}
	for _, m := range c.States.writes.metrics() {
		metrics <- m
	}
}

// ofCounters returns the metrics of each counter. A counter without a status has none.
func ofCounters(counters []v1alpha1.XDPCounter, states []v1alpha1.XDPNodeState, now time.Time) (list []prometheus.Metric) {
	oldest := map[string]time.Time{}
	for i := range states {
		reported := states[i].LastReported()
		for _, c := range states[i].Spec.Counters {
			if first, ok := oldest[c.Name]; !c.Inactive && (!ok || reported.Before(first)) {
				oldest[c.Name] = reported
			}
		}
	}
	for i := range counters {
		name, status := counters[i].Name, counters[i].Status
		if n := status.Nodes; n != nil {
			list = append(list, nodesSelected.With(float64(n.Selected), name), nodesReady.With(float64(n.Ready), name), nodesFailed.With(float64(n.Failed), name))
		}
		if status.ReportInterval != nil {
			list = append(list, reportInterval.With(status.ReportInterval.Seconds(), name))
		}
		if reported, ok := oldest[name]; ok {
			list = append(list, oldestReport.With(max(0, now.Sub(reported)).Seconds(), name))
		}
	}
	return list
}

// writes counts the writes of node states. The zero value is ready to use.
type writes struct {
	mu sync.Mutex
	by map[write]uint64
}

type write struct{ operation, result string }

// count counts a write by the result that its error stands for, and returns the error.
func (w *writes) count(operation string, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.by == nil {
		w.by = map[write]uint64{}
	}
	w.by[write{operation, metric.Result(err)}]++
	return err
}

func (w *writes) metrics() (list []prometheus.Metric) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for of, n := range w.by {
		list = append(list, nodeStateWrites.With(float64(n), of.operation, of.result))
	}
	return list
}
