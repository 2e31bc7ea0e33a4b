// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	testclock "k8s.io/utils/clock/testing"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/history"
	"github.com/xdp-operator/xdp-operator/test/util/memapi"
	"github.com/xdp-operator/xdp-operator/test/util/scrape"
)

// clocksEnv is a cluster with one counter whose agents and controllers have clocks of their own.
type clocksEnv struct {
	t      *testing.T
	clock  *testclock.FakeClock // of the API server
	client *memapi.Client
	skew   time.Duration // of the nodes' clocks
	r      *XDPCounterReconciler
}

func newClocksEnv(t *testing.T, nodes ...string) *clocksEnv {
	t.Helper()
	clock := testclock.NewFakeClock(now)
	e := &clocksEnv{t: t, clock: clock, client: &memapi.Client{Server: memapi.New(clock.Now)}}
	c := counter("a").Obj()
	e.must(e.client.Create(t.Context(), &c))
	for _, name := range nodes {
		n, s := node(name, ""), state(name).Listing(string(c.UID)).NeverReported().Obj()
		s.Spec.Counters[0].Name, s.Spec.Counters[0].Generation = "a", c.Generation
		e.must(e.client.Create(t.Context(), &n))
		e.must(e.client.Create(t.Context(), &s))
	}
	e.startController(0)
	return e
}

func (e *clocksEnv) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

// startController starts a controller whose clock differs from that of the API server.
func (e *clocksEnv) startController(skew time.Duration) {
	clock := history.Skewed{PassiveClock: e.clock, By: skew}
	e.r = &XDPCounterReconciler{Client: e.client, Live: e.client, Clock: clock, Events: &events.FakeRecorder{}}
}

func (e *clocksEnv) state(name string) *v1alpha1.XDPNodeState {
	e.t.Helper()
	s := &v1alpha1.XDPNodeState{}
	e.must(e.client.Get(e.t.Context(), types.NamespacedName{Name: name}, s))
	return s
}

// reports writes the report of an agent that follows its spec, says when its next report is due by its own clock, and has one
// interface. busy is whether there is traffic.
func (e *clocksEnv) reports(name string, busy bool) {
	e.t.Helper()
	s := e.state(name)
	at := e.clock.Now().Add(e.skew)
	uid := s.Spec.Counters[0].UID
	account := v1alpha1.CounterAccount{UID: uid, Generation: s.Spec.Counters[0].Generation, Counts: tcp(1)}
	if busy {
		account.Counts[0].PPS, account.Counts[0].BPS = 5, 4000
	}
	s.Status = v1alpha1.XDPNodeStateStatus{
		ObservedGeneration: s.Generation, ReportTime: new(metav1.NewMicroTime(at)),
		Interfaces: []v1alpha1.NodeInterface{{Name: "eth0", State: v1alpha1.InterfaceAttached, Mode: v1alpha1.AttachNative, Counters: []types.UID{uid}}},
		Accounts:   []v1alpha1.CounterAccount{account},
	}
	s.Status.NextReportTime = new(metav1.NewTime(v1alpha1.NextReportTime(at, s.ReportInterval(), s.Status.Accounts)))
	e.must(e.client.Status().Update(e.t.Context(), s))
}

// promises changes how long after its report the agent says that the next one is due.
func (e *clocksEnv) promises(name string, in time.Duration) {
	e.t.Helper()
	s := e.state(name)
	s.Status.NextReportTime = new(metav1.NewTime(s.Status.ReportTime.Add(in)))
	e.must(e.client.Status().Update(e.t.Context(), s))
}

// editSpec writes another spec.
func (e *clocksEnv) editSpec(name string) {
	e.t.Helper()
	s := e.state(name)
	s.Spec.Counters[0].Names = append(s.Spec.Counters[0].Names, "eth*")
	e.must(e.client.Update(e.t.Context(), s))
}

// setNode sets the Node's condition as Kubernetes does, by its own clock. Without a time the node is ready.
func (e *clocksEnv) setNode(name string, since time.Time) {
	e.t.Helper()
	n := &corev1.Node{}
	e.must(e.client.Get(e.t.Context(), types.NamespacedName{Name: name}, n))
	n.Status.Conditions = nil
	if !since.IsZero() {
		*n = unreachable(*n, since)
	}
	e.must(e.client.Status().Update(e.t.Context(), n))
}

// scrape reads the metrics.
func (e *clocksEnv) scrape() {
	e.t.Helper()
	scrape.Series(e.t, &Collector{Reader: e.client, States: &NodeStateReconciler{}, Counters: e.r, Clock: e.r.Clock})
}

// expect reconciles, and compares how many nodes are ready and failed, the reasons of the listed failures, and when the counter
// is reconciled again.
func (e *clocksEnv) expect(ready, failed int32, again time.Duration, reasons ...string) {
	e.t.Helper()
	result, err := e.r.Reconcile(e.t.Context(), request("a"))
	e.must(err)
	c := &v1alpha1.XDPCounter{}
	e.must(e.client.Get(e.t.Context(), types.NamespacedName{Name: "a"}, c))
	var got []string
	for _, f := range c.Status.Failures {
		got = append(got, f.Reason)
	}
	n := c.Status.Nodes
	if n.Ready != ready || n.Failed != failed || fmt.Sprint(got) != fmt.Sprint(reasons) || result.RequeueAfter != again {
		e.t.Errorf("%v after the start: %d nodes ready, %d failed with %v, again in %v; want %d, %d with %v, in %v",
			e.clock.Since(now), n.Ready, n.Failed, got, result.RequeueAfter, ready, failed, reasons, again)
	}
}

// Whether an agent is late depends neither on the clock of its node nor on that of the controller.
func TestLatenessWithWrongClocks(t *testing.T) {
	const (
		notReporting    = v1alpha1.ReasonAgentNotReporting
		nodeUnreachable = v1alpha1.ReasonNodeUnreachable
	)
	for name, do := range map[string]func(e *clocksEnv){
		"an agent that reports is not late": func(e *clocksEnv) {
			for range 20 {
				e.reports("n1", true)
				e.expect(1, 0, 80*time.Second)
				e.clock.Step(79 * time.Second)
				e.expect(1, 0, time.Second)
			}
		},
		"an agent that stops is late after its interval": func(e *clocksEnv) {
			e.reports("n1", true)
			e.expect(1, 0, 80*time.Second)
			e.clock.Step(80*time.Second - 1)
			e.expect(1, 0, 1)
			e.clock.Step(1)
			e.expect(0, 1, 0, notReporting)
			e.clock.Step(24 * time.Hour)
			e.expect(0, 1, 0, notReporting)
			e.reports("n1", false)
			e.expect(1, 0, 200*time.Second)
		},
		"an agent that says its next report was due before this one": func(e *clocksEnv) {
			e.reports("n1", true)
			e.promises("n1", -time.Hour)
			e.expect(1, 0, 80*time.Second)
		},
		"an agent that says its next report is due in a year": func(e *clocksEnv) {
			e.reports("n1", true)
			e.promises("n1", 365*24*time.Hour)
			e.expect(1, 0, 200*time.Second)
		},
		"an agent that has never reported": func(e *clocksEnv) {
			e.expect(0, 0, 3*time.Minute)
			e.clock.Step(3 * time.Minute)
			e.expect(0, 1, 0, notReporting)
		},
		"an agent that does not follow its spec is late after three minutes": func(e *clocksEnv) {
			e.reports("n1", true)
			e.expect(1, 0, 80*time.Second)
			e.clock.Step(70 * time.Second)
			e.editSpec("n1")
			e.expect(1, 0, 3*time.Minute)
			e.clock.Step(2 * time.Minute)
			e.editSpec("n1") // which does not give it more time
			e.expect(1, 0, time.Minute)
			e.clock.Step(time.Minute)
			e.expect(0, 1, 0, notReporting)
			e.reports("n1", true)
			e.expect(1, 0, 80*time.Second)
		},
		"an agent that is late is not given more time by a change of its spec": func(e *clocksEnv) {
			e.reports("n1", true)
			e.expect(1, 0, 80*time.Second)
			e.clock.Step(80 * time.Second)
			e.expect(0, 1, 0, notReporting)
			e.editSpec("n1")
			e.expect(0, 1, 0, notReporting)
		},
		"a node that is unreachable": func(e *clocksEnv) {
			e.reports("n1", false)
			e.expect(1, 0, 200*time.Second)
			e.setNode("n1", e.clock.Now().Add(e.skew)) // another clock
			e.expect(1, 0, time.Minute)
			e.clock.Step(time.Minute)
			e.expect(0, 1, 0, nodeUnreachable)
			e.setNode("n1", time.Time{})
			e.expect(1, 0, 140*time.Second)
			e.clock.Step(140 * time.Second)
			e.expect(0, 1, 0, notReporting)
		},
		"an unreachable node whose agent reports": func(e *clocksEnv) {
			e.reports("n1", false)
			e.expect(1, 0, 200*time.Second)
			e.setNode("n1", e.clock.Now().Add(e.skew))
			e.expect(1, 0, time.Minute)
			e.clock.Step(30 * time.Second)
			e.reports("n1", false)
			e.expect(1, 0, 200*time.Second)
			e.clock.Step(100 * time.Second)
			e.expect(1, 0, 100*time.Second)
			e.setNode("n1", e.clock.Now().Add(e.skew)) // it was reachable in the meantime
			e.expect(1, 0, time.Minute)
		},
		"a controller that starts measures from its start": func(e *clocksEnv) {
			e.reports("n1", true)
			e.expect(1, 0, 80*time.Second)
			e.clock.Step(time.Hour) // without a controller
			e.startController(-3 * time.Hour)
			e.expect(1, 0, 80*time.Second)
			e.clock.Step(80 * time.Second)
			e.expect(0, 1, 0, notReporting)
		},
		"a controller that starts does not make a late agent healthy": func(e *clocksEnv) {
			e.reports("n1", true)
			e.expect(1, 0, 80*time.Second)
			e.clock.Step(80 * time.Second)
			e.expect(0, 1, 0, notReporting)
			for _, skew := range []time.Duration{-3 * time.Hour, 3 * time.Hour} {
				e.startController(skew)
				e.expect(0, 1, 0, notReporting)
				e.clock.Step(time.Second)
				e.expect(0, 1, 0, notReporting)
			}
			e.reports("n1", true)
			e.expect(1, 0, 80*time.Second)
		},
		"a controller that starts does not make an unreachable node healthy": func(e *clocksEnv) {
			e.reports("n1", false)
			e.expect(1, 0, 200*time.Second)
			e.setNode("n1", e.clock.Now().Add(e.skew))
			e.expect(1, 0, time.Minute)
			e.clock.Step(time.Minute)
			e.expect(0, 1, 0, nodeUnreachable)
			e.startController(3 * time.Hour)
			e.expect(0, 1, 0, nodeUnreachable)
			e.startController(-3 * time.Hour)
			e.setNode("n1", time.Time{})
			e.expect(1, 0, 200*time.Second)
		},
		"a controller that takes over does not use what it saw before": func(e *clocksEnv) {
			e.reports("n1", true)
			e.scrape()
			e.clock.Step(time.Hour) // of an outage, in which no agent can report
			e.expect(1, 0, 80*time.Second)
			e.clock.Step(10 * time.Second)
			e.scrape()
			e.expect(1, 0, 70*time.Second)
		},
	} {
		for _, skew := range []time.Duration{0, -90 * time.Second, 2 * time.Hour, -2 * time.Hour} {
			t.Run(fmt.Sprintf("%s, with clocks that are wrong by %v", name, skew), func(t *testing.T) {
				e := newClocksEnv(t, "n1")
				e.skew = skew
				e.startController(skew / -2)
				do(e)
			})
		}
	}
}

// status.failures lists ten failures. The others are unknown to a controller that starts.
func TestControllerThatStartsWithMoreThanTenLateAgents(t *testing.T) {
	var names []string
	for i := range 12 {
		names = append(names, fmt.Sprintf("n%02d", i))
	}
	e := newClocksEnv(t, names...)
	for _, name := range names {
		e.reports(name, true)
	}
	late := func(n int) (reasons []string) {
		for range n {
			reasons = append(reasons, v1alpha1.ReasonAgentNotReporting)
		}
		return reasons
	}
	e.expect(12, 0, 80*time.Second)
	e.clock.Step(80 * time.Second)
	e.expect(0, 12, 0, late(10)...)
	e.startController(time.Hour)
	e.expect(2, 10, 80*time.Second, late(10)...)
	e.clock.Step(80 * time.Second)
	e.expect(0, 12, 0, late(10)...)
}

// A node state that replaces another one of the same name starts anew.
func TestLatenessOfANewNodeState(t *testing.T) {
	e := newClocksEnv(t, "n1")
	e.expect(0, 0, 3*time.Minute)
	e.clock.Step(3 * time.Minute)
	e.expect(0, 1, 0, v1alpha1.ReasonAgentNotReporting)
	old := e.state("n1")
	e.must(e.client.Delete(t.Context(), old))
	e.must(e.client.Create(t.Context(), &v1alpha1.XDPNodeState{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: old.Spec}))
	e.expect(0, 0, 3*time.Minute)
	if len(e.r.reports.seen) != 1 {
		t.Errorf("a deleted node state is remembered: %v", e.r.reports.seen)
	}
}
