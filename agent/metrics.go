// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"iter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/internal/metric"
)

// The metrics of an agent, in addition to those of controller-runtime and the Prometheus library.
var (
	packetsTotal = metric.Counter("xdpcounter_packets_total", "packets",
		"Frames seen at the XDP hook of the interface since the program was first attached to it. A reboot resets it.",
		"1 per interface and class that was seen, at most 515 classes; twice that together with xdpcounter_bytes_total", "interface", "family", "protocol")
	bytesTotal = metric.Counter("xdpcounter_bytes_total", "bytes",
		"Length of these frames, including the Ethernet header, without the frame check sequence.",
		"as xdpcounter_packets_total", "interface", "family", "protocol")
	interfaceAttached = metric.Gauge("xdpcounter_interface_attached", "1",
		"1 if the selected interface is counted, 0 if it is not. mode is the attach mode in use. reason says why it is not counted, why it is counted in generic mode, or what it counts twice.",
		"1 per selected interface that is not skipped (CountedElsewhere), and 1 per other mode that a younger XDPCounter requests for it", "interface", "mode", "requested_mode", "reason")
	featuresSwitchedOff = metric.Gauge("xdpcounter_interface_features_switched_off", "features",
		"Number of features, such as segmentation offloads, that the kernel or the driver has switched off because the program was attached: on the interface, on the peer of a veth, and on interfaces below. status.interfaces[].switchedOff of the XDPNodeState has their names.",
		"1 per counted interface", "interface")
	programInfo = metric.Gauge("xdpcounter_program_info", "1",
		"Always 1. tag is the kernel's hash of the instructions of the program that counts on the interface.",
		"1 per counted interface", "interface", "tag")
	programRuns = metric.Counter("xdpcounter_program_runs_total", "runs",
		"Runs of the program on the interface while the kernel collected statistics (kernel.bpf_stats_enabled). Not available if a dispatcher calls the program, because the kernel collects statistics of the dispatcher only.",
		"1 per counted interface with statistics", "interface")
	programRunTime = metric.Counter("xdpcounter_program_run_seconds_total", "seconds",
		"Total duration of these runs.",
		"1 per counted interface with statistics", "interface")
	agentInfo = metric.Gauge("xdpcounter_agent_info", "1",
		"Always 1. The labels are the agent's version, the node's kernel release, and the tag of the program that the agent attaches to interfaces without jumbo frames.",
		"1", "version", "kernel", "program_tag")
	snapshotDuration = metric.Gauge("xdpcounter_snapshot_duration_seconds", "seconds",
		"Time that it took to read all counts for this scrape.", "1")
	snapshotSuccess = metric.Gauge("xdpcounter_snapshot_success", "1",
		"1 if the counts were read for this scrape. 0 if reading failed; the scrape then has no counts.", "1")
	passDuration = metric.Gauge("xdpcounter_pass_duration_seconds", "seconds",
		"Duration of the agent's last pass.", "1, after the first pass")
	passSuccess = metric.Gauge("xdpcounter_pass_success", "1",
		"1 if the last pass succeeded. 0 if it failed; the error is in the agent's log.", "1, after the first pass")
	netlinkResyncs = metric.Counter("xdpcounter_netlink_resyncs_total", "resyncs",
		"Number of times that all interfaces were listed again because netlink messages were lost.", "1")
	reportWrites = metric.Counter("xdpcounter_report_writes_total", "writes",
		"Writes of the node's report to the API server since the agent started, by result: success, conflict (retried), error.", "3", "result")
)

// Metrics lists the metrics of an agent, in the order of docs/metrics.md.
func Metrics() []*metric.Definition {
	return []*metric.Definition{
		packetsTotal, bytesTotal, interfaceAttached, featuresSwitchedOff, programInfo, programRuns, programRunTime, agentInfo,
		snapshotDuration, snapshotSuccess, passDuration, passSuccess, netlinkResyncs, reportWrites,
	}
}

// fixedSeries is the number of series that an agent serves independently of what it counts.
const fixedSeries = 9

// MaxSeries returns the maximum number of series of an agent that counts the given number of interfaces, and the given
// number of classes added up over all interfaces, if no two XDPCounters request different modes for an interface.
func MaxSeries(interfaces, classes int) int { return 2*classes + 5*interfaces + fixedSeries }

// Collector implements prometheus.Collector for an agent. It reads the kernel at each scrape, and keeps no counts.
type Collector struct {
	Agent *Agent
	// Programs returns the program of each attachment. It can be called at any time, like Read of Agent.Datapath.
	Programs func() ([]plan.Program, error)
	// Resyncs returns how often all interfaces were listed again because netlink messages were lost. nil means never.
	Resyncs func() uint64
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range Metrics() {
		descs <- m.Desc()
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	for m := range c.observe().metrics() {
		metrics <- m
	}
}

// observation holds the data of one scrape.
type observation struct {
	info       v1alpha1.AgentInfo
	success    bool // of what follows
	readings   []traffic.Reading
	programs   []plan.Program
	interfaces []plan.Interface
	duration   time.Duration // of reading the counts

	resyncs uint64
	passResults
}

func (c *Collector) observe() observation {
	o := observation{info: c.Agent.Info, passResults: c.Agent.passMetrics.get()}
	if c.Resyncs != nil {
		o.resyncs = c.Resyncs()
	}
	began := c.Agent.Clock.Now()
	readings, err := c.Agent.Datapath.Read()
	o.duration = c.Agent.Clock.Since(began)
	if err != nil {
		return o // a pass gets the same error and reports it
	}
	if o.programs, err = c.Programs(); err != nil {
		return o
	}
	if o.interfaces, err = c.Agent.Links.List(); err != nil {
		return o
	}
	o.readings, o.success = readings, true
	return o
}

// metrics yields every metric once. The counts of a map are included while its program is attached to an interface. The
// counts of earlier attachments are only in the report.
func (o observation) metrics() iter.Seq[prometheus.Metric] {
	return func(yield func(prometheus.Metric) bool) {
		for _, list := range [][]prometheus.Metric{o.counts(), o.attached(), o.process()} {
			for _, m := range list {
				if !yield(m) {
					return
				}
			}
		}
	}
}

func (o observation) counts() (list []prometheus.Metric) {
	interfaces := byIndex(o.interfaces)
	programs := map[uint32]plan.Program{} // by map
	for _, p := range o.programs {
		programs[p.Map] = p
	}
	for _, r := range o.readings {
		p, ok := programs[r.Map.ID]
		if !ok {
			continue // attached or detached in the meantime
		}
		i := interfaces[r.Index]
		if !(plan.Attachment{Index: r.Index, ViaDispatcher: p.ViaDispatcher, Program: p.ID, Map: p.Map}).Live(i) {
			continue
		}
		name := i.Name
		for class, counts := range r.Totals.NonZero() {
			family, protocol := class.Family().String(), class.Protocol()
			list = append(list,
				packetsTotal.With(float64(counts.Packets), name, family, protocol),
				bytesTotal.With(float64(counts.Bytes), name, family, protocol))
		}
		if p.Tag != "" {
			list = append(list, programInfo.With(1, name, p.Tag))
		}
		if p.Runs > 0 {
			list = append(list, programRuns.With(float64(p.Runs), name), programRunTime.With(p.RunTime.Seconds(), name))
		}
	}
	return list
}

func (o observation) attached() (list []prometheus.Metric) {
	for _, w := range o.interfaceMetrics {
		list = append(list, interfaceAttached.With(metric.Bool(w.attached), w.name, string(w.mode), string(w.requested), w.reason))
		if w.attached {
			list = append(list, featuresSwitchedOff.With(float64(w.switchedOff), w.name))
		}
	}
	return list
}

func (o observation) process() []prometheus.Metric {
	list := []prometheus.Metric{
		agentInfo.With(1, o.info.Version, o.info.KernelRelease, o.info.ProgramTag),
		snapshotDuration.With(o.duration.Seconds()),
		snapshotSuccess.With(metric.Bool(o.success)),
		netlinkResyncs.With(float64(o.resyncs)),
	}
	for _, result := range metric.Results {
		list = append(list, reportWrites.With(float64(o.writes[result]), result))
	}
	if o.passed {
		list = append(list, passDuration.With(o.lastPass.Seconds()), passSuccess.With(metric.Bool(o.lastSucceeded)))
	}
	return list
}
