package controllers

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

func TestTheIntervalIsStretchedToTheBudget(t *testing.T) {
	for name, tc := range map[string]struct {
		nodes, size int
		budget      Budget
		wanted      time.Duration
		want        time.Duration
	}{
		"within the budget as wanted":               {500, 2000, Budget{WritesPerSecond: 50}, 10 * time.Second, 10 * time.Second},
		"one node too many doubles it":              {501, 2000, Budget{WritesPerSecond: 50}, 10 * time.Second, 20 * time.Second},
		"5,000 nodes at a second":                   {5000, 2000, Budget{WritesPerSecond: 50}, time.Second, 128 * time.Second},
		"no bound":                                  {5000, 2000, Budget{}, time.Second, time.Second},
		"no nodes":                                  {0, 2000, Budget{50, 200_000}, time.Second, time.Second},
		"a longer wish needs less":                  {5000, 2000, Budget{50, 200_000}, time.Hour, time.Hour},
		"a small budget for a small cluster":        {3, 2000, Budget{WritesPerSecond: 0.1}, 10 * time.Second, 40 * time.Second},
		"reports within the bytes":                  {500, 4000, Budget{50, 200_000}, 10 * time.Second, 10 * time.Second},
		"a byte too many doubles it":                {500, 4001, Budget{50, 200_000}, 10 * time.Second, 20 * time.Second},
		"the bytes bound where the writes do not":   {500, 4001, Budget{BytesPerSecond: 200_000}, 10 * time.Second, 20 * time.Second},
		"the writes bound where the bytes do not":   {501, 10, Budget{50, 200_000}, 10 * time.Second, 20 * time.Second},
		"5,000 nodes with twenty counters' reports": {5000, 18_000, Budget{50, 200_000}, 10 * time.Second, 640 * time.Second},
	} {
		if got := tc.budget.stretch(tc.wanted, tc.nodes, tc.size); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// What is guessed too small goes over the budget, what is guessed too large makes reports rarer than they need be.
func TestTheSizeOfAReportIsGuessed(t *testing.T) {
	for name, tc := range map[string]struct{ counters, interfaces, classes int }{
		"one of each":                 {1, 1, 4},
		"a server":                    {1, 2, 8},
		"twenty counters":             {20, 2, 6},
		"a hundred interfaces":        {1, 100, 6},
		"everything that can be sent": {5, 4, traffic.NumClasses},
		"no counter left":             {0, 1, 8},
	} {
		state := reporting("node-0123.example.org", tc.counters, tc.interfaces, tc.classes)
		guess := reportSize(state.Spec.Counters, state)
		state.Spec = v1alpha1.XDPNodeStateSpec{} // agents do not send it
		raw, err := json.Marshal(state)
		if err != nil {
			t.Fatal(err)
		}
		size := len(raw)
		if guess < size || guess > size+size/2 {
			t.Errorf("%s: %d bytes are taken for %d", name, size, guess)
		}
	}
}

func TestWhatAgentsAreToldDoesNotChangeTheSizeOfTheirReports(t *testing.T) {
	const few = 2 // classes, as an agent has before there is traffic
	state := reporting("n1", 3, 1, few)
	before := reportSize(state.Spec.Counters, nil)
	if after := reportSize(state.Spec.Counters, state); after != before {
		t.Errorf("%d bytes before the first report, %d after", before, after)
	}
	for i := range state.Status.Accounts {
		for j := range state.Status.Accounts[i].Counts {
			state.Status.Accounts[i].Counts[j] = v1alpha1.ClassCounts{Class: "IPv4/TCP"}
		}
	}
	if after := reportSize(state.Spec.Counters, state); after != before {
		t.Errorf("%d bytes with large numbers, %d with small ones", before, after)
	}
}

func TestNotEachNodeThatComesOrGoesConcernsAll(t *testing.T) {
	c := &census{}
	for _, step := range []struct {
		nodes   int
		room    int
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
		if got := c.sharers(); got != step.room || changed != step.changed || got < c.nodes {
			t.Errorf("%d nodes have room for %d, told %v; want %d, %v", c.nodes, got, changed, step.room, step.changed)
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
			for b.Loop() {
				summarize(&c, nodeList, states, now)
				untilNextLate(nodeList, states, now)
				attachStates(c.UID, states)
			}
		})
	}
}
