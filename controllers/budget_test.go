// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/memapi"
)

func TestBudgetInterval(t *testing.T) {
	for name, tc := range map[string]struct {
		nodes  int
		budget Budget
		wanted time.Duration
		want   time.Duration
	}{
		"three quarters of the budget are not exceeded": {375, Budget{WritesPerSecond: 50}, 10 * time.Second, 10 * time.Second},
		"one more node doubles the interval":            {376, Budget{WritesPerSecond: 50}, 10 * time.Second, 20 * time.Second},
		"5,000 nodes at a second":                       {5000, Budget{WritesPerSecond: 50}, time.Second, 256 * time.Second},
		"no limit":                                      {5000, Budget{}, time.Second, time.Second},
		"no nodes":                                      {0, Budget{50, 200_000}, time.Second, time.Second},
		"a long interval needs no doubling":             {5000, Budget{50, 200_000}, time.Hour, time.Hour},
		"a small budget for a small cluster":            {3, Budget{WritesPerSecond: 0.1}, 10 * time.Second, 40 * time.Second},
	} {
		if got := tc.budget.interval(tc.wanted, tc.nodes); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// What the controller and the agents do together keeps the regular reports of a cluster within three quarters of both budgets.
func TestRegularReportsStayWithinTheBudget(t *testing.T) {
	budget := Budget{WritesPerSecond: 50, BytesPerSecond: 200_000}
	for _, nodes := range []int{1, 3, 100, 375, 376, 1000, 5000} {
		for _, size := range []int32{500, 2000, 18_000, 60_000} {
			var s v1alpha1.XDPNodeState
			s.Spec.ReportInterval.Duration = budget.interval(10*time.Second, nodes)
			s.Spec.ReportBytesPerSecond = budget.bytesPerNode(nodes)
			s.Status.ReportBytes = size
			perSecond := float64(nodes) / s.ReportInterval().Seconds()
			if perSecond > 0.75*50 || perSecond*float64(size) > 0.75*200_000 {
				t.Errorf("%d nodes with reports of %d bytes: %.1f reports per second every %v", nodes, size, perSecond, s.ReportInterval())
			}
			if half := s.ReportInterval() / 2; half >= 10*time.Second &&
				float64(nodes)/half.Seconds() <= 0.75*50 && float64(nodes)*float64(size)/half.Seconds() <= 0.74*200_000 {
				t.Errorf("%d nodes with reports of %d bytes: %v is longer than needed", nodes, size, s.ReportInterval())
			}
		}
	}
}

// The reports that follow a change of all specs, together with the regular ones, stay within the budget, apart from what one
// second's budget allows at once.
func TestSpecPaceKeepsReportsWithinTheBudget(t *testing.T) {
	budget := Budget{WritesPerSecond: 50, BytesPerSecond: 200_000}
	for name, tc := range map[string]struct {
		nodes int
		size  int32
	}{
		"200 nodes":                          {200, 2000},
		"5,000 nodes":                        {5000, 2000},
		"5,000 nodes with large reports":     {5000, 10_000},
		"a node whose report fills a second": {300, 190_000},
	} {
		t.Run(name, func(t *testing.T) {
			var pace specPace
			var s v1alpha1.XDPNodeState
			s.Spec.ReportInterval.Duration = budget.interval(10*time.Second, tc.nodes)
			s.Spec.ReportBytesPerSecond = budget.bytesPerNode(tc.nodes)
			s.Status.ReportBytes = tc.size
			interval := s.ReportInterval()
			regular := float64(tc.nodes) / interval.Seconds()
			var last float64
			for i := range tc.nodes {
				at := pace.wait(budget, &s, fmt.Sprint(i), tc.nodes, interval, now).Seconds()
				allowed := min(budget.WritesPerSecond, budget.BytesPerSecond/float64(tc.size))
				if most := allowed + (allowed-regular)*at + 1; float64(i+1) > most {
					t.Fatalf("%d specs are written within %.1f s, want at most %.1f", i+1, at, most)
				}
				last = at
			}
			if most := float64(tc.nodes) / (0.25 * min(budget.WritesPerSecond, budget.BytesPerSecond/float64(tc.size))); last > most {
				t.Errorf("the last spec waits %.0f s, want at most %.0f", last, most)
			}
		})
	}
}

func TestSpecPaceWritesToFewNodesAtOnce(t *testing.T) {
	var pace specPace
	budget := Budget{WritesPerSecond: 50, BytesPerSecond: 200_000}
	var s v1alpha1.XDPNodeState
	s.Status.ReportBytes = 2000
	for i := range 45 {
		if wait := pace.wait(budget, &s, fmt.Sprint(i), 45, 10*time.Second, now); wait != 0 {
			t.Fatalf("spec %d of 45 waits %v", i, wait)
		}
	}
	for i := range 1000 {
		if wait := pace.wait(Budget{}, nil, fmt.Sprint("n", i), 1000, 10*time.Second, now); wait != 0 {
			t.Fatalf("without a budget a spec waits %v", wait)
		}
	}
}

func TestSpecPaceKeepsThePlaceOfANode(t *testing.T) {
	var pace specPace
	budget := Budget{WritesPerSecond: 1}
	wait := func(node string, at time.Time) time.Duration {
		return pace.wait(budget, nil, node, 0, 10*time.Second, at)
	}
	if got := wait("a", now); got != time.Second { // a new node reports twice, and one second's budget may be used at once
		t.Errorf("the first node waits %v", got)
	}
	if got := wait("b", now); got != 3*time.Second {
		t.Errorf("the second node waits %v", got)
	}
	if got := wait("a", now.Add(400*time.Millisecond)); got != 600*time.Millisecond {
		t.Errorf("the first node, asked again, waits %v", got)
	}
	pace.done("a")
	if got := wait("a", now.Add(time.Second)); got != 4*time.Second {
		t.Errorf("the first node's next spec waits %v", got)
	}
	if got := wait("c", now.Add(time.Hour)); got != time.Second {
		t.Errorf("an hour later a node waits %v", got)
	}
}

func TestNodeCountIsRounded(t *testing.T) {
	c := &nodeCount{}
	for _, step := range []struct {
		nodes   int
		rounded int
		changed bool
	}{
		{3, 3, true},
		{1, 4, true},
		{5, 10, true}, // 9 nodes
		{1, 10, false},
		{90, 112, true}, // 100
		{12, 112, false},
		{1, 128, true}, // 113
		{-1, 128, false},
		{-16, 128, false}, // 96: three quarters
		{-1, 96, true},
		{-95, 0, true},
		{5000, 5120, true},
	} {
		changed := c.add(step.nodes)
		if got := c.get(); got != step.rounded || changed != step.changed || got < c.nodes {
			t.Errorf("%d nodes are rounded to %d, changed %v; want %d, %v", c.nodes, got, changed, step.rounded, step.changed)
		}
	}
}

func TestNodesOnWhichNoAgentCanRunTakeNoShareOfTheBudget(t *testing.T) {
	client := &memapi.Client{Server: memapi.New(func() time.Time { return now })}
	r := &NodeStateReconciler{Client: client}
	q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	defer q.ShutDown()
	linux, win := node("n1", ""), windows("w1", "")
	h := r.onNodeCount()
	for _, step := range []struct {
		name  string
		event func()
		want  int
	}{
		{"a Linux node joins", func() { h.Create(t.Context(), event.CreateEvent{Object: &linux}, q) }, 1},
		{"a Windows node joins", func() { h.Create(t.Context(), event.CreateEvent{Object: &win}, q) }, 1},
		{"it is labelled as a Linux node", func() { h.Update(t.Context(), event.UpdateEvent{ObjectOld: &win, ObjectNew: &linux}, q) }, 2},
		{"a Linux node changes", func() { h.Update(t.Context(), event.UpdateEvent{ObjectOld: &linux, ObjectNew: &linux}, q) }, 2},
		{"it is labelled as a Windows node", func() { h.Update(t.Context(), event.UpdateEvent{ObjectOld: &linux, ObjectNew: &win}, q) }, 1},
		{"the Windows node leaves", func() { h.Delete(t.Context(), event.DeleteEvent{Object: &win}, q) }, 1},
		{"the Linux node leaves", func() { h.Delete(t.Context(), event.DeleteEvent{Object: &linux}, q) }, 0},
	} {
		if step.event(); r.nodes.get() != step.want {
			t.Errorf("%s: %d nodes share the budget, want %d", step.name, r.nodes.get(), step.want)
		}
	}
}

// reporting is a state as the agent of a busy node reports it, with that many of each.
func reporting(node string, counters, interfaces, classes int) *v1alpha1.XDPNodeState {
	s := state(node).Every(40 * time.Second).Obj()
	s.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "XDPNodeState"}
	s.UID, s.ResourceVersion = "3c2c4a0e-6a35-44a9-b9a5-0f3f1f2b5d11", "123456789"
	s.Spec.UpdateTime = &metav1.Time{Time: now}
	s.Status.Agent = &v1alpha1.AgentInfo{Version: "0.1.0", KernelRelease: "6.12.0-amd64", BootID: "3c2c4a0e-6a35-44a9-b9a5-0f3f1f2b5d12", ProgramTag: "0123456789abcdef"}
	s.Status.NewestMap = 1234
	s.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, ObservedGeneration: 3, LastTransitionTime: metav1.NewTime(born),
		Reason: v1alpha1.ReasonAllInterfacesAttached, Message: fmt.Sprintf("%d interfaces are being counted", interfaces),
	}}
	var totals traffic.Totals
	var rates traffic.Rates
	for _, class := range busiest(classes) {
		totals[class] = traffic.Counts{Packets: 123_456_789_012, Bytes: 98_765_432_109_876}
		rates[class] = traffic.Rate{PacketsPerSecond: 123_456, BitsPerSecond: 987_654_321}
	}
	var uids []types.UID
	for i := range counters {
		uid := types.UID(fmt.Sprintf("3c2c4a0e-6a35-44a9-b9a5-%012d", i))
		uids = append(uids, uid)
		s.Spec.Counters = append(s.Spec.Counters, v1alpha1.NodeCounter{
			Name: fmt.Sprintf("workers-%d", i), UID: uid, Generation: 2, Primary: true, Names: []string{"ens*"},
		})
		s.Status.Accounts = append(s.Status.Accounts, v1alpha1.CounterAccount{
			UID: uid, Generation: 2, Counts: v1alpha1.CountsAndRatesOf(totals, rates),
		})
	}
	for i := range interfaces {
		s.Status.Interfaces = append(s.Status.Interfaces, v1alpha1.NodeInterface{
			Name: fmt.Sprintf("ens%d", i), Index: int32(i + 2), Driver: "virtio_net", MTU: 1500, RequestedMode: v1alpha1.AttachAuto, Mode: v1alpha1.AttachNative,
			State: v1alpha1.InterfaceAttached, Counters: uids, Map: int64(1000 + i), Counts: v1alpha1.CountsOf(totals),
		})
	}
	return &s
}

// busiest returns that many classes, those first that are seen first.
func busiest(n int) []traffic.Class {
	list := []traffic.Class{
		traffic.IP(traffic.IPv4, 6), traffic.IP(traffic.IPv4, 17), traffic.ClassARP, traffic.IP(traffic.IPv6, 6), traffic.IP(traffic.IPv6, 17),
		traffic.IP(traffic.IPv4, 1), traffic.IP(traffic.IPv6, 58), traffic.ClassOther,
	}
	if n <= len(list) {
		return list[:n]
	}
	list = nil
	for class := range traffic.Class(traffic.NumClasses) {
		list = append(list, class)
	}
	return list[:n]
}

// What a status costs in a large cluster: one counter is summed up at most once per StatusInterval, however many nodes
// report.
func BenchmarkSummarize(b *testing.B) {
	for _, nodes := range []int{100, 1000, 5000} {
		b.Run(fmt.Sprintf("%d nodes of 20 counters", nodes), func(b *testing.B) {
			nodeList, states := nodesWithStates(nodes, 20)
			c := counter("a").Obj()
			c.UID = states[0].Spec.Counters[10].UID
			var reports reportTimes
			for b.Loop() {
				seen := reports.look(nodeList, states, now)
				summarize(&c, nodeList, states, seen, now)
				untilNextLate(seen, now)
				attachStates(c.UID, states)
			}
		})
	}
}

func TestBudgetWithoutLimitsOrNodes(t *testing.T) {
	limited := Budget{WritesPerSecond: 50, BytesPerSecond: 200_000}
	for name, tc := range map[string]struct{ got, want float64 }{
		"bytes of a node without a limit":       {float64(Budget{}.bytesPerNode(5)), 0},
		"bytes of a node where there is none":   {float64(limited.bytesPerNode(0)), 0},
		"bytes of a node of 1,000":              {float64(limited.bytesPerNode(1000)), 150},
		"cost without limits":                   {Budget{}.cost(2000), 0},
		"cost of a small report":                {limited.cost(100), 0.02},
		"cost of a large report":                {limited.cost(200_000), 1},
		"cost if only the bytes are limited":    {Budget{BytesPerSecond: 1000}.cost(500), 0.5},
		"interval that a counter without wants": {wantedInterval(&v1alpha1.XDPCounter{}).Seconds(), 10},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: %v, want %v", name, tc.got, tc.want)
		}
	}
}

func TestNodeThatHasNotReportedTakesTheTurnsOfTwoReports(t *testing.T) {
	budget, now := Budget{WritesPerSecond: 1}, time.Unix(1000, 0)
	second := func(state *v1alpha1.XDPNodeState) time.Duration {
		var p specPace
		p.wait(budget, state, "n1", 0, 10*time.Second, now)
		return p.wait(budget, state, "n2", 0, 10*time.Second, now)
	}
	reported := &v1alpha1.XDPNodeState{}
	reported.Status.ReportBytes = 100
	if without, with := second(&v1alpha1.XDPNodeState{}), second(reported); without != 3*time.Second || with != time.Second {
		t.Errorf("the second spec waits %v, and %v if the nodes have reported; want 3s and 1s", without, with)
	}
}
