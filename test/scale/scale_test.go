// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/util/eventually"
	"github.com/xdp-operator/xdp-operator/test/util/objects"
)

// The write budget (the defaults of the controller's flags), and the resource limits of the controller, at any size.
const (
	writesPerSecond    = 50
	kilobytesPerSecond = 200
	controllerMiB      = 300
	controllerCores    = 0.5
	// tolerance allows for reports that are delayed, and therefore closer to the next one.
	tolerance = 1.1
	// atATime is the allowed peak within one second, in multiples of the budget, because reports are not spread evenly.
	atATime = 3
)

// patience is the timeout of each step, on a busy machine.
const patience = 10 * time.Minute

// TestReportBudget checks that the rate of writes to the API server does not grow with the number of nodes and counters: in
// steady traffic, when the controller, all agents or the API server restart, and when the specs of all nodes change. It also
// checks that the totals include every packet.
func TestReportBudget(t *testing.T) {
	s := newScaleRun(t)
	s.agents.peak.reset()

	s.phase("apply", func() {
		for i := range *counters {
			s.apply(i)
		}
		s.eventually(s.allNotified(*counters))
		s.logf("notified after %.1f s", s.elapsed())
		s.eventually(s.ready(*counters - 1))
		s.logf("Ready=True after %.1f s", s.elapsed())
	})
	interval := s.interval()
	t.Logf("reports are due every %s, wanted every %s", interval, *wish)

	stop := s.traffic()
	s.phase("first packets", func() {
		s.eventually(s.counted(1))
		s.logf("the first of a node in the total after %.1f s", s.elapsed())
	})
	steady := s.phase("steady", func() {
		span := *window
		if span == 0 {
			span = min(2*interval, 30*time.Second)
		}
		time.Sleep(span)
	})
	if steady.reports == 0 || steady.kilo == 0 {
		t.Error("no report was seen in steady traffic")
	}
	if steady.resident > controllerMiB || steady.cores[controller] > controllerCores {
		t.Errorf("the controller has %.0f MiB and takes %.2f cores, want at most %d and %.1f", steady.resident, steady.cores[controller], controllerMiB, controllerCores)
	}
	s.expectNoSpecs(steady)

	s.expectNoSpecs(s.phase("controller restarts", func() {
		s.restartController()
		s.eventually(s.summedUpSince(time.Now()))
	}))
	s.expectNoSpecs(s.phase("all agents restart", func() {
		s.agents.stop()
		if err := s.agents.start(context.Background()); err != nil {
			t.Fatal(err)
		}
		s.eventually(s.summedUpSince(time.Now()))
	}))
	s.expectNoSpecs(s.phase("API server restarts", func() {
		if err := errors.Join(c.StopAPIServer(), c.StartAPIServer()); err != nil {
			t.Fatal(err)
		}
		s.logf("it is back after %.1f s", s.elapsed())
		back := time.Now()
		s.eventually(func() error {
			if s.controller.Ended() != nil { // it could not renew its lease and has exited; a kubelet would restart it
				s.startController()
			}
			return s.summedUpSince(back)()
		})
	}))
	s.phase("one more counter", func() {
		s.apply(*counters)
		s.eventually(s.allNotified(*counters + 1))
		s.logf("notified after %.1f s", s.elapsed())
	})
	s.phase("another selector", func() {
		s.selectPool(0)
		s.eventually(s.allNotified(*counters + 2))
		s.logf("notified after %.1f s", s.elapsed())
	})
	dead := s.agents.nodes[:(*nodes+9)/10]
	s.phase("a tenth dies", func() {
		if err := s.agents.kill(t.Context(), c.Client, dead); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second) // the nodes count, but do not report
		stop()
		s.eventually(s.unreachable(len(dead)))
		s.logf("notified after %.1f s", s.elapsed())
	})
	s.phase("the dead return", func() {
		if err := s.agents.revive(t.Context(), c.Client, dead); err != nil {
			t.Fatal(err)
		}
	})
	s.phase("the last packets", func() {
		for _, counter := range []int{0, *counters} {
			s.eventually(s.ready(counter))
		}
		s.logf("Ready=True after %.1f s", s.elapsed())
		s.eventually(s.exact)
	})
	s.print()
}

// scaleRun is the state shared by all phases.
type scaleRun struct {
	*testing.T
	agents     *simulatedAgents
	controller *netnscluster.Process
	began      time.Time // start of the current phase
	rows       []row
	depths     depths
}

func newScaleRun(t *testing.T) *scaleRun {
	s := &scaleRun{T: t, began: time.Now()}
	s.startController()
	var err error
	if s.agents, err = newSimulatedAgents(c, *nodes); err != nil {
		t.Fatal(err)
	}
	if err := s.agents.join(t.Context(), c.Client); err != nil {
		t.Fatal(err)
	}
	s.logf("%d nodes joined after %.1f s", *nodes, s.elapsed())
	// The test's context is not used, because it is cancelled before the cleanup that waits for the agents.
	if err := s.agents.start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.agents.stop)
	go s.depths.watch(t.Context())
	s.logf("their agents watch after %.1f s", s.elapsed())
	return s
}

func (s *scaleRun) elapsed() float64 { return time.Since(s.began).Seconds() }

func (s *scaleRun) logf(format string, args ...any) { s.Logf("  "+format, args...) }

// phase runs one phase and returns its measurements.
func (s *scaleRun) phase(name string, do func()) row {
	s.Helper()
	s.Logf("%s:", name)
	before := s.measure()
	s.agents.peak.reset()
	s.began = before.at
	do()
	resident, err := s.controller.Resident()
	if err != nil {
		s.Fatal(err)
	}
	r := between(name, before, s.measure())
	most, written := s.agents.peak.reset()
	r.peak, r.kilo = most, float64(written)/1000/r.seconds
	r.resident, r.depth = float64(resident)/(1<<20), s.depths.reset()
	s.rows = append(s.rows, r)
	s.logf("%s\n%s", header, r)
	s.expectBudget(r)
	return r
}

// expectBudget checks that the reports stayed within the budget, with a tolerance of one second.
func (s *scaleRun) expectBudget(r row) {
	s.Helper()
	allowed := tolerance*r.seconds + 1
	if reports, kilo := r.reports*r.seconds, r.kilo*r.seconds; reports > allowed*writesPerSecond || kilo > allowed*kilobytesPerSecond {
		s.Errorf("%s: %.0f reports and %.0f kB in %.1f s, want at most %d and %d per second", r.phase, reports, kilo, r.seconds, writesPerSecond, kilobytesPerSecond)
	}
	if r.peak > atATime*writesPerSecond {
		s.Errorf("%s: %d reports were tried within a second, want at most %d", r.phase, r.peak, atATime*writesPerSecond)
	}
}

// expectNoSpecs checks that no specs were written, because a restart must not change anything.
func (s *scaleRun) expectNoSpecs(r row) {
	s.Helper()
	if r.specs != 0 {
		s.Errorf("%s: %.0f writes of the specs of node states, want none", r.phase, r.specs)
	}
}

func (s *scaleRun) measure() sample {
	sample, err := measure(s.Context(), c)
	if err != nil {
		s.Fatal(err)
	}
	return sample
}

func (s *scaleRun) print() {
	lines := []string{fmt.Sprintf("%d nodes, %d counters:", *nodes, *counters), header}
	for _, r := range s.rows {
		lines = append(lines, r.String())
	}
	s.Log(strings.Join(lines, "\n"))
}

func (s *scaleRun) eventually(check func() error) {
	s.Helper()
	if err := eventually.Check(s.Context(), patience, check); err != nil {
		s.print()
		s.Fatal(err)
	}
}

func (s *scaleRun) startController() {
	var err error
	if s.controller, err = c.StartController(context.Background(), "controller", "--metrics-bind-address="+controllerMetrics, "--metrics-secure=false"); err != nil {
		s.Fatal(err)
	}
}

// restartController restarts the controller, as an upgrade does.
func (s *scaleRun) restartController() {
	if err := s.controller.Signal(syscall.SIGTERM); err != nil {
		s.Fatal(err)
	}
	s.startController()
}

func name(counter int) string { return fmt.Sprintf("counter-%d", counter) }

// apply creates a counter that selects all nodes.
func (s *scaleRun) apply(counter int) {
	x := &v1alpha1.XDPCounter{}
	x.Name = name(counter)
	x.Spec.ReportInterval.Duration = *wish
	if err := c.Client.Create(s.Context(), x); err != nil {
		s.Fatal(err)
	}
}

// selectPool changes the selector of a counter to another one that selects the same nodes.
func (s *scaleRun) selectPool(counter int) {
	x := &v1alpha1.XDPCounter{}
	x.Name = name(counter)
	err := objects.Edit(s.Context(), c.Client, x, func() { // the controller writes its status
		x.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "edge"}}
	})
	if err != nil {
		s.Fatal(err)
	}
}

func (s *scaleRun) get(counter int) (*v1alpha1.XDPCounter, error) {
	x := &v1alpha1.XDPCounter{}
	return x, c.Client.Get(s.Context(), types.NamespacedName{Name: name(counter)}, x)
}

// interval returns the report interval in the specs of the nodes.
func (s *scaleRun) interval() time.Duration {
	state := &v1alpha1.XDPNodeState{}
	if err := c.Client.Get(s.Context(), types.NamespacedName{Name: s.agents.nodes[0].name}, state); err != nil {
		s.Fatal(err)
	}
	return state.Spec.ReportInterval.Duration
}

// allNotified checks that all agents have received counters whose generations have the given sum.
func (s *scaleRun) allNotified(generations int) func() error {
	return func() error {
		if err := s.controller.Ended(); err != nil {
			s.Fatal(err)
		}
		if n := s.agents.notified(int64(generations)); n < *nodes {
			return fmt.Errorf("%d of %d agents are notified", n, *nodes)
		}
		return nil
	}
}

// unreachable checks that the first counter reports the number of unreachable nodes. If the interval is short, some of them
// are reported as late instead.
func (s *scaleRun) unreachable(dead int) func() error {
	return func() error {
		x, err := s.get(0)
		if err != nil {
			return err
		}
		reported := slices.ContainsFunc(x.Status.Failures, func(f v1alpha1.Failure) bool { return f.Reason == v1alpha1.ReasonNodeUnreachable })
		if int(x.Status.Nodes.Failed) != dead || !reported {
			return fmt.Errorf("counter %s has %d nodes that failed, and %v", x.Name, x.Status.Nodes.Failed, x.Status.Failures)
		}
		return nil
	}
}

func (s *scaleRun) ready(counter int) func() error {
	return func() error {
		x, err := s.get(counter)
		if err != nil {
			return err
		}
		ready := meta.FindStatusCondition(x.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Reason != v1alpha1.ReasonAllInterfacesAttached || int(x.Status.Nodes.Ready) != *nodes {
			return fmt.Errorf("counter %s says %v", x.Name, ready)
		}
		return nil
	}
}

// traffic advances the traffic by one tick per second until stop is called.
func (s *scaleRun) traffic() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			s.agents.traffic.ticks.Add(1)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}()
	s.Cleanup(cancel)
	return func() { cancel(); <-done }
}

// counted checks that the total has at least the packets that the number of nodes receive in a tick.
func (s *scaleRun) counted(nodes int) func() error {
	totals := arrived(uint64(nodes))
	want := int64(totals.Sum().Packets)
	return func() error {
		x, err := s.get(0)
		if err == nil && (x.Status.Total == nil || x.Status.Total.Packets < want) {
			err = fmt.Errorf("counter %s has %v, want %d packets", x.Name, x.Status.Total, want)
		}
		return err
	}
}

// summedUpSince checks that the status includes a report that is newer than t.
func (s *scaleRun) summedUpSince(t time.Time) func() error {
	return func() error {
		x, err := s.get(0)
		if err == nil && (x.Status.LastReportTime == nil || !x.Status.LastReportTime.After(t)) {
			err = fmt.Errorf("counter %s has had no report since %s", x.Name, t)
		}
		return err
	}
}

// exact checks that each of the first counters has exactly the packets of all nodes.
func (s *scaleRun) exact() error {
	want := arrived(s.agents.traffic.ticks.Load() * uint64(*nodes))
	for i := range *counters {
		x, err := s.get(i)
		if err != nil {
			return err
		}
		if got := v1alpha1.TotalsOfProtocols(x.Status.Protocols); got != want {
			return fmt.Errorf("counter %s has %v, want %v", x.Name, got.Sum(), want.Sum())
		}
	}
	return nil
}
