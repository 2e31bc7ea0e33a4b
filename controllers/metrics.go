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

// What a controller serves, beside what controller-runtime says of its controllers, queues and requests.
var (
	nodesSelected = metric.Gauge("xdpcounter_nodes_selected", "nodes",
		"Nodes that the XDPCounter selects.", "1 per XDPCounter", "xdpcounter")
	nodesReady = metric.Gauge("xdpcounter_nodes_ready", "nodes",
		"Selected nodes on which every selected interface is being counted.", "1 per XDPCounter", "xdpcounter")
	nodesFailed = metric.Gauge("xdpcounter_nodes_failed", "nodes",
		"Selected nodes on which something cannot be counted, or whose agent is silent.", "1 per XDPCounter", "xdpcounter")
	reportInterval = metric.Gauge("xdpcounter_report_interval_seconds", "seconds",
		"How often agents report for the XDPCounter: what it asks for, stretched to the write budget.", "1 per XDPCounter", "xdpcounter")
	oldestReport = metric.Gauge("xdpcounter_oldest_report_age_seconds", "seconds",
		"Age of the oldest among the latest reports of the nodes that count for the XDPCounter; of a node that has not reported yet, the age of its node state.",
		"1 per XDPCounter that some node counts for", "xdpcounter")
	nodeStateWrites = metric.Counter("xdpcounter_node_state_writes_total", "writes",
		"Writes of XDPNodeStates since the controller started, by operation and result: success, conflict (tried again), error.",
		"at most 9", "operation", "result")
)

// Metrics lists what a controller serves, in the order of docs/metrics.md.
func Metrics() []*metric.Definition {
	return []*metric.Definition{nodesSelected, nodesReady, nodesFailed, reportInterval, oldestReport, nodeStateWrites}
}

// maxFixedSeries is how many series a controller serves at most without any XDPCounter.
const maxFixedSeries = 9

// MaxSeries returns how many series a controller serves at most with that many XDPCounters.
func MaxSeries(counters int) int { return 5*counters + maxFixedSeries }

// Collector collects the metrics of a controller from its caches at each scrape. If there are several controllers, all
// report the same for XDPCounters.
type Collector struct {
	Reader client.Reader // of the caches
	States *NodeStateReconciler
	Clock  clock.PassiveClock
}

// scrapeTimeout is how long a scrape waits for the caches to be filled.
const scrapeTimeout = time.Second

// Describe implements prometheus.Collector.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range Metrics() {
		descs <- m.Desc()
	}
}

// Collect implements prometheus.Collector. It leaves out what is not in the caches yet.
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

// ofCounters returns the metrics of each counter. A counter without a status has none yet.
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

// count counts a write with its result, and returns err.
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
