// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
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
		"Age of the oldest of the latest reports of all nodes that count for the XDPCounter: the time since this replica first saw it, at most since it became active. For a node that has not reported yet, since it first saw its XDPNodeState.",
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
// same values for the XDPCounters, with one exception: to a replica that is not active, a report is as old as the scrape that first
// saw it.
type Collector struct {
	Reader   client.Reader // of the caches
	States   *NodeStateReconciler
	Counters *XDPCounterReconciler
	Clock    clock.PassiveClock
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
	nodes := &corev1.NodeList{}
	states := &v1alpha1.XDPNodeStateList{}
	if c.list(ctx, counters, nodes, states) == nil {
		now := c.Clock.Now()
		seen := c.Counters.reports.look(nodes.Items, states.Items, now)
		for _, m := range ofCounters(counters.Items, states.Items, seen, now) {
			metrics <- m
		}
	}
	for _, m := range c.States.writes.metrics() {
		metrics <- m
	}
}

// list fills the lists from the caches.
func (c *Collector) list(ctx context.Context, lists ...client.ObjectList) error {
	var errs []error
	for _, list := range lists {
		errs = append(errs, c.Reader.List(ctx, list, client.UnsafeDisableDeepCopy))
	}
	return errors.Join(errs...)
}

// ofCounters returns the metrics of each counter. A counter without a status has none. seen is when the report of each node state
// was first seen.
func ofCounters(counters []v1alpha1.XDPCounter, states []v1alpha1.XDPNodeState, seen map[types.UID]sighting, now time.Time) (list []prometheus.Metric) {
	oldest := map[string]time.Time{}
	for i := range states {
		at := seen[states[i].UID].at
		for _, c := range states[i].Spec.Counters {
			if first, ok := oldest[c.Name]; !c.Inactive && (!ok || at.Before(first)) {
				oldest[c.Name] = at
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
		if at, ok := oldest[name]; ok {
			list = append(list, oldestReport.With(max(0, now.Sub(at)).Seconds(), name))
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
