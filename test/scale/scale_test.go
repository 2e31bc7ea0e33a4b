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
)

// What may be written (the defaults of the controller's flags) and used, at any size.
const (
	writesPerSecond    = 50
	kilobytesPerSecond = 200
	controllerMiB      = 300
	controllerCores    = 0.5
	// tolerance is for reports that come a little later than they were made, and so nearer to the next one.
	tolerance = 1.1
	// atATime is how many times the budget may be asked for within one second: turns are spread, but not evenly.
	atATime = 3
)

// opening is the phase in which agents open their ledgers.
const opening = "apply"

// patience is how long each step may take; the machine may be busy.
const patience = 10 * time.Minute

// What is written to the API server in a second does not grow with the number of nodes and counters: not in steady
// traffic, not when the controller, all agents or the API server start anew, and not when all nodes are told something.
// And every packet is in the totals.
func TestReportsStayWithinTheBudget(t *testing.T) {
	s := newStory(t)
	s.fleet.peak.reset()

	s.phase(opening, func() {
		for i := range *counters {
			s.apply(i)
		}
		s.eventually(s.allTold(*counters))
		s.logf("told after %.1f s", s.elapsed())
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

	s.expectNoSpecs(s.phase("controller starts anew", func() {
		s.restartController()
		s.eventually(s.summedUpSince(time.Now()))
	}))
	s.expectNoSpecs(s.phase("all agents start anew", func() {
		s.fleet.stop()
		if err := s.fleet.start(context.Background()); err != nil {
			t.Fatal(err)
		}
		s.eventually(s.summedUpSince(time.Now()))
	}))
	s.expectNoSpecs(s.phase("API server starts anew", func() {
		if err := errors.Join(c.StopAPIServer(), c.StartAPIServer()); err != nil {
			t.Fatal(err)
		}
		s.logf("it is back after %.1f s", s.elapsed())
		back := time.Now()
		s.eventually(func() error {
			if s.controller.Ended() != nil { // it could not renew its lease: its kubelet would start it again
				s.startController()
			}
			return s.summedUpSince(back)()
		})
	}))
	s.phase("one more counter", func() {
		s.apply(*counters)
		s.eventually(s.allTold(*counters + 1))
		s.logf("told after %.1f s", s.elapsed())
	})
	s.phase("another selector", func() {
		s.selectPool(0)
		s.eventually(s.allTold(*counters + 2))
		s.logf("told after %.1f s", s.elapsed())
	})
	dead := s.fleet.nodes[:(*nodes+9)/10]
	s.phase("a tenth dies", func() {
		if err := s.fleet.kill(t.Context(), c.Client, dead); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second) // in which they count, and nobody reports it
		stop()
		s.eventually(s.unreachable(len(dead)))
		s.logf("told after %.1f s", s.elapsed())
	})
	s.phase("the dead return", func() {
		if err := s.fleet.revive(t.Context(), c.Client, dead); err != nil {
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

// story is what all phases share.
type story struct {
	*testing.T
	fleet      *fleet
	controller *netnscluster.Process
	began      time.Time // the present phase
	rows       []row
	depths     depths
}

func newStory(t *testing.T) *story {
	s := &story{T: t, began: time.Now()}
	s.startController()
	var err error
	if s.fleet, err = newFleet(c, *nodes); err != nil {
		t.Fatal(err)
	}
	if err := s.fleet.join(t.Context(), c.Client); err != nil {
		t.Fatal(err)
	}
	s.logf("%d nodes joined after %.1f s", *nodes, s.elapsed())
	// Not the test's own context: that is cancelled before the cleanup that waits for them.
	if err := s.fleet.start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.fleet.stop)
	go s.depths.watch(t.Context())
	s.logf("their agents watch after %.1f s", s.elapsed())
	return s
}

func (s *story) elapsed() float64 { return time.Since(s.began).Seconds() }

func (s *story) logf(format string, args ...any) { s.Logf("  "+format, args...) }

// phase runs one phase and returns what it took.
func (s *story) phase(name string, do func()) row {
	s.Helper()
	s.Logf("%s:", name)
	before := s.measure()
	s.fleet.peak.reset()
	s.began = before.at
	do()
	resident, err := s.controller.Resident()
	if err != nil {
		s.Fatal(err)
	}
	r := between(name, before, s.measure())
	most, written := s.fleet.peak.reset()
	r.peak, r.kilo = most, float64(written)/1000/r.seconds
	r.resident, r.depth = float64(resident)/(1<<20), s.depths.reset()
	s.rows = append(s.rows, r)
	s.logf("%s\n%s", header, r)
	s.expectBudget(r)
	return r
}

// expectBudget checks that the reports were within the budget, as many as may come in a second aside.
func (s *story) expectBudget(r row) {
	s.Helper()
	allowed, first := tolerance*r.seconds+1, 0.0
	if r.phase == opening { // the first report of a node is written at once: before it nothing is counted
		first = float64(*nodes)
	}
	if reports, kilo := r.reports*r.seconds, r.kilo*r.seconds; reports > allowed*writesPerSecond+first || kilo > allowed*kilobytesPerSecond {
		s.Errorf("%s: %.0f reports and %.0f kB in %.1f s, want at most %d and %d per second", r.phase, reports, kilo, r.seconds, writesPerSecond, kilobytesPerSecond)
	}
	if r.peak > atATime*writesPerSecond && first == 0 {
		s.Errorf("%s: %d reports were tried within a second, want at most %d", r.phase, r.peak, atATime*writesPerSecond)
	}
}

// expectNoSpecs checks that nobody was told anything: what starts anew finds all as it should be.
func (s *story) expectNoSpecs(r row) {
	s.Helper()
	if r.specs != 0 {
		s.Errorf("%s: %.0f writes of the specs of node states, want none", r.phase, r.specs)
	}
}

func (s *story) measure() sample {
	sample, err := measure(s.Context(), c)
	if err != nil {
		s.Fatal(err)
	}
	return sample
}

func (s *story) print() {
	lines := []string{fmt.Sprintf("%d nodes, %d counters:", *nodes, *counters), header}
	for _, r := range s.rows {
		lines = append(lines, r.String())
	}
	s.Log(strings.Join(lines, "\n"))
}

func (s *story) eventually(check func() error) {
	s.Helper()
	if err := netnscluster.Eventually(s.Context(), patience, check); err != nil {
		s.print()
		s.Fatal(err)
	}
}

func (s *story) startController() {
	var err error
	if s.controller, err = c.StartController(context.Background(), "controller", "--metrics-bind-address="+controllerMetrics, "--metrics-secure=false"); err != nil {
		s.Fatal(err)
	}
}

// restartController is what an upgrade does.
func (s *story) restartController() {
	if err := s.controller.Signal(syscall.SIGTERM); err != nil {
		s.Fatal(err)
	}
	s.startController()
}

func name(counter int) string { return fmt.Sprintf("counter-%d", counter) }

// apply makes a counter that selects all nodes.
func (s *story) apply(counter int) {
	x := &v1alpha1.XDPCounter{}
	x.Name = name(counter)
	x.Spec.ReportInterval.Duration = *wish
	if err := c.Client.Create(s.Context(), x); err != nil {
		s.Fatal(err)
	}
}

// selectPool edits a counter so that it selects the same nodes in another way.
func (s *story) selectPool(counter int) {
	x, err := s.get(counter)
	if err != nil {
		s.Fatal(err)
	}
	x.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "edge"}}
	if err := c.Client.Update(s.Context(), x); err != nil {
		s.Fatal(err)
	}
}

func (s *story) get(counter int) (*v1alpha1.XDPCounter, error) {
	x := &v1alpha1.XDPCounter{}
	return x, c.Client.Get(s.Context(), types.NamespacedName{Name: name(counter)}, x)
}

// interval returns how often nodes are told to report.
func (s *story) interval() time.Duration {
	state := &v1alpha1.XDPNodeState{}
	if err := c.Client.Get(s.Context(), types.NamespacedName{Name: s.fleet.nodes[0].name}, state); err != nil {
		s.Fatal(err)
	}
	return state.Spec.ReportInterval.Duration
}

// allTold checks that all agents know of counters whose generations have that sum.
func (s *story) allTold(generations int) func() error {
	return func() error {
		if err := s.controller.Ended(); err != nil {
			s.Fatal(err)
		}
		if n := s.fleet.told(int64(generations)); n < *nodes {
			return fmt.Errorf("%d of %d agents are told", n, *nodes)
		}
		return nil
	}
}

// unreachable checks that the first counter knows of that many nodes that they cannot be reached. Where the interval is
// short, some have been silent for long enough too.
func (s *story) unreachable(dead int) func() error {
	return func() error {
		x, err := s.get(0)
		if err != nil {
			return err
		}
		told := slices.ContainsFunc(x.Status.Failures, func(f v1alpha1.Failure) bool { return f.Reason == v1alpha1.ReasonNodeUnreachable })
		if int(x.Status.Nodes.Failed) != dead || !told {
			return fmt.Errorf("counter %s has %d nodes that failed, and %v", x.Name, x.Status.Nodes.Failed, x.Status.Failures)
		}
		return nil
	}
}

func (s *story) ready(counter int) func() error {
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

// traffic lets a tick pass each second, until stop is called.
func (s *story) traffic() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			s.fleet.wire.ticks.Add(1)
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

// counted checks that the total has as many packets as that many nodes receive in a tick.
func (s *story) counted(nodes int) func() error {
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

// summedUpSince checks that the status has a report that was made since.
func (s *story) summedUpSince(t time.Time) func() error {
	return func() error {
		x, err := s.get(0)
		if err == nil && (x.Status.LastReportTime == nil || !x.Status.LastReportTime.After(t)) {
			err = fmt.Errorf("counter %s has had no report since %s", x.Name, t)
		}
		return err
	}
}

// exact checks that each of the first counters has every packet of all nodes.
func (s *story) exact() error {
	want := arrived(s.fleet.wire.ticks.Load() * uint64(*nodes))
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
