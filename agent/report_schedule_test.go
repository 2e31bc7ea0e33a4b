// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

func TestReportScheduleInterval(t *testing.T) {
	n := newNode(t, counter("a"))
	n.settle()
	saves := func() bool { steps, _, _ := n.pass(); return slices.Contains(steps, "save") }

	n.receive("eth0", 100)
	n.clock.Step(9 * time.Second)
	if saves() {
		t.Error("totals were reported before the node's turn")
	}
	n.clock.Step(time.Second)
	if !saves() {
		t.Error("totals were not reported when it was the node's turn")
	}
	account := n.state().Status.Accounts[0]
	want := v1alpha1.Counts{{Class: "IPv4/TCP", Packets: 100, Bytes: 10_000, PPS: 10, BPS: 8000}}
	if diff := cmp.Diff(want, account.Counts); diff != "" {
		t.Errorf("the classes (-want +got):\n%s", diff)
	}
	n.clock.Step(10 * time.Second)
	if !saves() {
		t.Error("the rate was not set to zero when traffic ended")
	}
	if account := n.state().Status.Accounts[0]; account.Rate() != (traffic.Rate{}) {
		t.Errorf("after 10 s without traffic the rate is %v", account.Rate())
	}
	heartbeat := turnAfter(n.clock.Now(), 100*time.Second, "n1")
	n.clock.SetTime(heartbeat.Add(-1))
	if saves() {
		t.Error("a quiet node wrote before its heartbeat")
	}
	n.clock.SetTime(heartbeat)
	if !saves() {
		t.Error("a quiet node wrote no heartbeat")
	}
	n.interfaces[1].MTU = 9000
	if !saves() {
		t.Error("a change of state was not reported at once")
	}
	n.clock.Step(-time.Hour)
	n.receive("eth0", 1)
	saves()
	n.clock.Step(10 * time.Second)
	if !saves() {
		t.Error("a clock that was set back silenced the agent")
	}
}

func TestNewSpecIsFollowedAndReportedAtOnce(t *testing.T) {
	n := newNode(t, counter("a"))
	n.settle()
	n.clock.Step(time.Second)
	n.edit(func(s *v1alpha1.XDPNodeState) {
		s.Spec.Counters = append(s.Spec.Counters, counter("b"))
		s.Spec.Counters[1].Primary, s.Spec.Counters[1].Names = false, []string{"eth1"}
	})
	n.expectSteps("attach eth1", "read", "save")
	if s := n.state(); s.Status.ObservedGeneration != s.Generation {
		t.Errorf("observedGeneration is %d, want %d", s.Status.ObservedGeneration, s.Generation)
	}
}

// A node with large reports stays within its share of the bytes by reporting less often, and the report says when the next
// one is due.
func TestReportIntervalFollowsTheSizeOfReports(t *testing.T) {
	n := newNode(t, counter("a"))
	n.settle()
	size := n.state().Status.ReportBytes
	if size < 500 || size > 2000 {
		t.Fatalf("status.reportBytes is %d", size)
	}
	n.edit(func(s *v1alpha1.XDPNodeState) { s.Spec.ReportBytesPerSecond = int64(size) / 25 }) // 25 s for one report
	n.settle()
	if got, want := n.state().ReportInterval(), 40*time.Second; got != want {
		t.Fatalf("the interval is %v, want %v", got, want)
	}
	n.clock.SetTime(turnAfter(n.clock.Now(), 40*time.Second, "n1"))
	n.settle()
	n.receive("eth0", 1)
	n.clock.Step(39 * time.Second)
	n.expectSteps("read")
	n.clock.Step(time.Second)
	n.expectSteps("read", "save")
	s := n.state()
	if got, want := s.Status.NextReportTime.Sub(s.Status.ReportTime.Time).Round(time.Second), 2*40*time.Second+v1alpha1.ReportTolerance; got != want {
		t.Errorf("with traffic the next report is due after %v, want %v", got, want)
	}
	n.clock.Step(40 * time.Second)
	n.expectSteps("read", "save")
	s = n.state()
	if got, want := s.Status.NextReportTime.Sub(s.Status.ReportTime.Time).Round(time.Second), 2*400*time.Second; got != want {
		t.Errorf("without traffic the next report is due after %v, want %v", got, want)
	}
}

func TestReportBytesKeepsItsValueWhileReportsFit(t *testing.T) {
	for name, tc := range map[string]struct {
		saved int32
		size  int
		want  int32
	}{
		"the first report":                        {0, 800, 900},
		"a report of the same size":               {900, 900, 900},
		"a report that is one byte too large":     {900, 901, 1013},
		"a report of three quarters of the bytes": {900, 675, 900},
		"a report that is smaller than that":      {900, 674, 758},
	} {
		if got := reportBytes(tc.saved, tc.size); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

// What makes one report fail is likely to make the reports of all nodes fail, so they do not all retry at the same time.
func TestFailedRegularReportIsRetriedAtTheNextTurn(t *testing.T) {
	for name, tc := range map[string]struct{ interval, want time.Duration }{
		"of its interval":                     {time.Minute, time.Minute},
		"at most of what it takes to make up": {time.Hour, retryPeriod},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, counter("a"))
			n.edit(func(s *v1alpha1.XDPNodeState) { s.Spec.ReportInterval.Duration = tc.interval })
			n.settle()
			n.receive("eth0", 1)
			n.clock.SetTime(turnAfter(n.clock.Now(), tc.interval, "n1"))
			n.saveError = errAPIDown
			if steps, _, err := n.pass(); err == nil || !slices.Contains(steps, "save refused") {
				t.Fatalf("the pass made %v, %v", steps, err)
			}
			n.saveError = nil
			failed := n.clock.Now()
			next := turnAfter(failed, tc.want, "n1")
			n.expectSteps("read")
			n.clock.SetTime(next.Add(-1))
			n.expectSteps("read")
			n.clock.SetTime(next)
			n.expectSteps("read", "save")
		})
	}
}

func TestFailedReportOfAStateChangeIsRetriedAtOnce(t *testing.T) {
	n := newNode(t, counter("a"))
	n.settle()
	n.interfaces[1].MTU = 9000
	n.saveError = errAPIDown
	for range 2 {
		if steps, _, err := n.pass(); err == nil || !slices.Contains(steps, "save refused") {
			t.Fatalf("the pass made %v, %v", steps, err)
		}
	}
	n.saveError = nil
	n.expectSteps("read", "save")
}

func TestReplacedVersionIsNotWrittenOn(t *testing.T) {
	states := v1alpha1.GroupVersion.WithResource("xdpnodestates").GroupResource()
	for name, release := range map[string]func(*node){
		"until the watch brings the next one": func(n *node) { n.edit(func(*v1alpha1.XDPNodeState) {}) },
		"and not for ever":                    func(n *node) { n.clock.Step(staleTimeout) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, counter("a"))
			n.settle()
			n.interfaces[1].MTU = 9000
			n.saveError = apierrors.NewConflict(states, "n1", errors.New("changed"))
			n.expectSteps("read", "save refused")
			n.saveError = nil
			for range 3 {
				n.expectSteps("read") // the cache is still behind
				n.clock.Step(reportPause)
			}
			release(n)
			n.expectSteps("read", "save")
		})
	}
}

func TestTurnsOfNodesAreSpread(t *testing.T) {
	const nodes, period = 1000, 10 * time.Second
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var perSecond [10]int
	for i := range nodes {
		node := fmt.Sprintf("ip-10-0-%d-%d.internal", i/250, i%250)
		turn := turnAfter(began, period, node)
		if !turn.After(began) || turn.Sub(began) > period {
			t.Fatalf("the turn of %s is %v", node, turn)
		}
		if next := turnAfter(turn, period, node); next.Sub(turn) != period {
			t.Errorf("the next turn of %s comes after %v", node, next.Sub(turn))
		}
		if again := turnAfter(turn.Add(-1), period, node); !again.Equal(turn) {
			t.Errorf("the turn of %s is at %v and at %v", node, turn, again)
		}
		perSecond[min(9, int(turn.Sub(began)/time.Second))]++
	}
	for _, n := range perSecond {
		if n < 60 || n > 140 { // 100 each, give or take four standard deviations
			t.Errorf("of %d turns %v are in each second", nodes, perSecond)
			break
		}
	}
}

func TestTurnsOfALongerPeriodAreTurnsOfTheShorter(t *testing.T) {
	start := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	const period = 40 * time.Second
	if at := turnAfter(start, 0, "n1"); !at.Equal(start) {
		t.Errorf("without a period the turn is at %v", at)
	}
	for _, node := range []string{"n1", "n2", "node-17.example", ""} {
		turns := map[time.Time]bool{}
		for at := start; at.Before(start.Add(time.Hour)); {
			at = turnAfter(at, period, node)
			turns[at] = true
		}
		if len(turns) != 91 {
			t.Errorf("%s has %d turns until the first one after an hour, want 91", node, len(turns))
		}
		for _, longer := range []time.Duration{80 * time.Second, 160 * time.Second, 400 * time.Second} {
			for at := turnAfter(start, longer, node); at.Before(start.Add(time.Hour)); at = turnAfter(at, longer, node) {
				if !turns[at] {
					t.Errorf("%s has a turn at %v for %v, and none for %v", node, at, longer, period)
				}
			}
		}
	}
}
