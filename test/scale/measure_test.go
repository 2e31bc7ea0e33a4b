// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

// sample holds the resource usage up to one time.
type sample struct {
	at         time.Time
	reports    float64 // writes of the status of node states, at the API server
	refused    float64 // those that were tried and refused as conflicts
	failed     float64 // those that were answered with anything else
	specs      float64 // other writes of node states
	statuses   float64 // writes of XDPCounters
	seconds    float64 // that reports took altogether
	events     float64 // that watchers of node states were sent
	eventBytes float64
	cpu        map[string]float64 // seconds, by program
	started    float64            // when the API server was, in seconds since 1970
	queued     float64            // keys that the controller has taken from its queues
	waited     float64            // seconds that they were in there altogether
}

// The programs whose CPU time is measured.
const (
	apiServer  = "kube-apiserver"
	etcd       = "etcd"
	controller = "controller"
)

var (
	start = regexp.MustCompile(`(?m)^process_start_time_seconds ([0-9.e+]+)$`)
	queue = regexp.MustCompile(`(?m)^workqueue_(depth|queue_duration_seconds_sum|queue_duration_seconds_count)\{.*\} ([0-9.e+-]+)$`)
	line  = regexp.MustCompile(`(?m)^(apiserver_request_total|apiserver_request_duration_seconds_sum|apiserver_watch_events_total|apiserver_watch_events_sizes_sum)\{(.*resource="xdp(?:nodestates|counters)".*)\} ([0-9.e+]+)$`)
	label = regexp.MustCompile(`([a-z_]+)="([^"]*)"`)
)

// measure reads the metrics of the API server, and the CPU times from the kernel.
func measure(ctx context.Context, c *netnscluster.Cluster) (s sample, err error) {
	clients, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		return s, err
	}
	text, err := clients.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return s, fmt.Errorf("get the metrics of the API server: %w", err)
	}
	s.at = time.Now()
	for _, found := range line.FindAllSubmatch(text, -1) {
		value, err := strconv.ParseFloat(string(found[3]), 64)
		if err != nil {
			return s, err
		}
		labels := map[string]string{}
		for _, l := range label.FindAllSubmatch(found[2], -1) {
			labels[string(l[1])] = string(l[2])
		}
		s.add(string(found[1]), labels, value)
	}
	if found := start.FindSubmatch(text); found != nil {
		if s.started, err = strconv.ParseFloat(string(found[1]), 64); err != nil {
			return s, err
		}
	}
	queues, err := controllerQueues(ctx)
	if err != nil {
		return s, err
	}
	s.queued, s.waited = queues["queue_duration_seconds_count"], queues["queue_duration_seconds_sum"]
	s.cpu, err = cpuTimes()
	return s, err
}

// controllerMetrics is the address of the controller's metrics. TLS is not needed in this network namespace.
const controllerMetrics = "127.0.0.1:18080"

// controllerQueues returns metrics of the controller's queues, added up over all queues: depth, queue_duration_seconds_sum
// and queue_duration_seconds_count. The map is empty while no controller runs.
func controllerQueues(ctx context.Context) (map[string]float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+controllerMetrics+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	sums := map[string]float64{}
	for _, found := range queue.FindAllSubmatch(text, -1) {
		value, err := strconv.ParseFloat(string(found[2]), 64)
		if err != nil {
			return nil, err
		}
		sums[string(found[1])] += value
	}
	return sums, nil
}

// depths holds the maximum depth of the controller's queues.
type depths struct {
	mu   sync.Mutex
	most float64
}

func (d *depths) watch(ctx context.Context) {
	for ctx.Err() == nil {
		if queues, err := controllerQueues(ctx); err == nil {
			d.mu.Lock()
			d.most = max(d.most, queues["depth"])
			d.mu.Unlock()
		}
		time.Sleep(time.Second)
	}
}

// reset returns the maximum depth since the last call.
func (d *depths) reset() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	most := d.most
	d.most = 0
	return int(most)
}

func (s *sample) add(metric string, labels map[string]string, value float64) {
	states := labels["resource"] == "xdpnodestates"
	verb := strings.ToUpper(labels["verb"])
	writes := verb != "GET" && verb != "LIST" && verb != "WATCH" && verb != "WATCHLIST"
	switch {
	case metric == "apiserver_watch_events_total" && states:
		s.events += value
	case metric == "apiserver_watch_events_sizes_sum" && states:
		s.eventBytes += value
	case !writes:
	case metric == "apiserver_request_total" && !states:
		s.statuses += value
	case metric == "apiserver_request_total" && labels["subresource"] == "status":
		switch {
		case strings.HasPrefix(labels["code"], "2"):
			s.reports += value
		case labels["code"] == "409":
			s.refused += value
		default:
			s.failed += value
		}
	case metric == "apiserver_request_total":
		s.specs += value
	case metric == "apiserver_request_duration_seconds_sum" && states && labels["subresource"] == "status":
		s.seconds += value
	}
}

// cpuTimes returns the CPU time of each program in this PID namespace in seconds. It includes that of processes that have
// exited after an earlier call.
func cpuTimes() (map[string]float64, error) {
	const ticksPerSecond = 100 // USER_HZ, the same on all architectures that count (proc_pid_stat(5))
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	times := map[string]float64{}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // the process has ended
		}
		_, rest, _ := bytes.Cut(stat, []byte("("))
		at := bytes.LastIndexByte(rest, ')')
		fields := strings.Fields(string(rest[at+1:]))
		user, err := strconv.ParseFloat(fields[11], 64)
		if err != nil {
			return nil, err
		}
		system, err := strconv.ParseFloat(fields[12], 64)
		if err != nil {
			return nil, err
		}
		times[string(rest[:at])] += (user + system) / ticksPerSecond
	}
	return times, nil
}

// row is what one phase took.
type row struct {
	phase    string
	seconds  float64
	reports  float64 // per second
	refused  float64 // altogether
	failed   float64 // altogether
	kilo     float64 // kilobytes of reports per second
	peak     int     // the most reports within a second
	each     float64 // milliseconds that a report takes
	specs    float64
	statuses float64
	events   float64 // per second
	cores    map[string]float64
	resident float64 // MiB, of the controller
	depth    int     // the most keys in its queues
	wait     float64 // milliseconds that a key is in there
}

func between(phase string, a, b sample) row {
	seconds := b.at.Sub(a.at).Seconds()
	if a.started != b.started { // the counters of the API server were reset
		a = sample{cpu: map[string]float64{controller: a.cpu[controller], etcd: a.cpu[etcd]}, queued: a.queued, waited: a.waited}
	}
	r := row{
		phase: phase, seconds: seconds,
		reports: (b.reports - a.reports) / seconds,
		refused: b.refused - a.refused, failed: b.failed - a.failed, specs: b.specs - a.specs, statuses: b.statuses - a.statuses, events: (b.events - a.events) / seconds,
		cores: map[string]float64{},
	}
	if n := b.reports - a.reports + b.refused - a.refused + b.failed - a.failed; n > 0 {
		r.each = 1000 * (b.seconds - a.seconds) / n
	}
	if b.queued < a.queued { // the counters of the controller were reset
		a.queued, a.waited = 0, 0
	}
	if n := b.queued - a.queued; n > 0 {
		r.wait = 1000 * (b.waited - a.waited) / n
	}
	for program, used := range b.cpu {
		before := a.cpu[program]
		if used < before {
			before = 0
		}
		r.cores[program] = (used - before) / seconds
	}
	return r
}

const header = "phase                            s  reports/s  refused  failed   KB/s  most in 1 s  ms each  spec writes  status writes  events/s | cores: API server  etcd  controller | controller MiB  queue  ms in it"

func (r row) String() string {
	return fmt.Sprintf("%-25s %8.1f %10.1f %8.0f %7.0f %6.0f %12d %8.1f %12.0f %14.0f %9.1f | %17.2f %5.2f %11.2f | %14.0f %6d %9.0f",
		r.phase, r.seconds, r.reports, r.refused, r.failed, r.kilo, r.peak, r.each, r.specs, r.statuses, r.events, r.cores[apiServer], r.cores[etcd], r.cores[controller], r.resident, r.depth, r.wait)
}
