package agent

import (
	"iter"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/metric"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// What an agent serves, beside what controller-runtime and the Prometheus library say of every process.
var (
	packetsTotal = metric.Counter("xdpcounter_packets_total", "packets",
		"Frames seen at the XDP hook of the interface since its counts were made: at its first attachment, and anew after a reboot.",
		"2 × classes with this: one per interface and class of which a frame was seen, at most 515 classes", "interface", "family", "protocol")
	bytesTotal = metric.Counter("xdpcounter_bytes_total", "bytes",
		"Length of these frames, from the Ethernet header without FCS.",
		"as xdpcounter_packets_total", "interface", "family", "protocol")
	interfaceAttached = metric.Gauge("xdpcounter_interface_attached", "1",
		"1 if an interface that is selected is being counted, in the mode attained; 0 if not, for the reason given.",
		"1 per selected interface that is not skipped (CountedElsewhere), and 1 per other mode that a younger XDPCounter wants on it", "interface", "mode", "requested_mode", "reason")
	programInfo = metric.Gauge("xdpcounter_program_info", "1",
		"1 for the program that counts on the interface, known by the kernel's tag of its instructions.",
		"1 per counted interface", "interface", "tag")
	programRuns = metric.Counter("xdpcounter_program_runs_total", "runs",
		"Runs of the program on the interface while the kernel kept statistics (kernel.bpf_stats_enabled). None where a dispatcher calls it: the kernel keeps them of the dispatcher.",
		"1 per counted interface with statistics", "interface")
	programRunTime = metric.Counter("xdpcounter_program_run_seconds_total", "seconds",
		"Time that these runs took.",
		"1 per counted interface with statistics", "interface")
	agentInfo = metric.Gauge("xdpcounter_agent_info", "1",
		"1 for the agent's version, the node's kernel, and the tag of the program that the agent attaches for an ordinary MTU.",
		"1", "version", "kernel", "program_tag")
	snapshotDuration = metric.Gauge("xdpcounter_snapshot_duration_seconds", "seconds",
		"How long it took to read all counts for this scrape.", "1")
	snapshotSuccess = metric.Gauge("xdpcounter_snapshot_success", "1",
		"1 if the counts could be read for this scrape; else 0, and there are no counts in it.", "1")
	passDuration = metric.Gauge("xdpcounter_pass_duration_seconds", "seconds",
		"How long the agent's last pass took.", "1, once there was a pass")
	passSuccess = metric.Gauge("xdpcounter_pass_success", "1",
		"1 if the last pass did all that it had to; 0 if it ended with an error, which the agent's log has.", "1, once there was a pass")
	netlinkResyncs = metric.Counter("xdpcounter_netlink_resyncs_total", "resyncs",
		"How often the kernel had more to tell of interfaces than was read in time, so that all were listed anew.", "1")
	reportWrites = metric.Counter("xdpcounter_report_writes_total", "writes",
		"Writes of the node's report to the API server since the agent started, by result: success, conflict (tried again), error.", "3", "result")
)

// Metrics lists what an agent serves, in the order of docs/metrics.md.
func Metrics() []*metric.Definition {
	return []*metric.Definition{
		packetsTotal, bytesTotal, interfaceAttached, programInfo, programRuns, programRunTime, agentInfo,
		snapshotDuration, snapshotSuccess, passDuration, passSuccess, netlinkResyncs, reportWrites,
	}
}

// fixedSeries is how many series an agent serves whatever it counts.
const fixedSeries = 9

// MaxSeries returns how many series an agent serves at most that counts so many classes altogether, over all its
// interfaces, and that many interfaces, if no two XDPCounters want one in different modes.
func MaxSeries(interfaces, classes int) int { return 2*classes + 4*interfaces + fixedSeries }

// Collector makes the metrics of an agent, at each scrape from what the kernel has then. It keeps no counts.
type Collector struct {
	Agent *Agent
	// Programs returns what runs for each attachment. It may be called at any time, like Agent.Datapath's Read.
	Programs func() ([]plan.Program, error)
	// Resyncs returns how often all interfaces were listed anew since messages of the kernel were lost. nil: never.
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

// observation is all that one scrape tells.
type observation struct {
	info       v1alpha1.AgentInfo
	success    bool // of what follows
	readings   []traffic.Reading
	programs   []plan.Program
	interfaces []plan.Interface
	duration   time.Duration // of reading the counts

	resyncs uint64
	past
}

func (c *Collector) observe() observation {
	o := observation{info: c.Agent.Info, past: c.Agent.seen.get()}
	if c.Resyncs != nil {
		o.resyncs = c.Resyncs()
	}
	began := c.Agent.Clock.Now()
	readings, err := c.Agent.Datapath.Read()
	o.duration = c.Agent.Clock.Since(began)
	if err != nil {
		return o // the passes meet it too, and tell
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

// metrics yields every metric once. What is counted has a name as long as an interface carries its program; what is left
// of earlier attachments is in the report only.
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
	for _, r := range o.readings {
		at := slices.IndexFunc(o.programs, func(p plan.Program) bool { return p.Map == r.Map.ID })
		if at < 0 {
			continue // attached or detached meanwhile
		}
		p := o.programs[at]
		live := plan.Attachment{Index: r.Index, ViaDispatcher: p.ViaDispatcher, Program: p.ID, Map: p.Map}.Live
		at = slices.IndexFunc(o.interfaces, live)
		if at < 0 {
			continue
		}
		name := o.interfaces[at].Name
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
	for _, w := range o.wishes {
		list = append(list, interfaceAttached.With(metric.Bool(w.attached), w.name, string(w.mode), string(w.requested), w.reason))
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
