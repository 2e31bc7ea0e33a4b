// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

func TestSavedMapIDs(t *testing.T) {
	agent := &v1alpha1.AgentInfo{BootID: "boot"}
	for name, tc := range map[string]struct {
		agent *v1alpha1.AgentInfo
		id    int64
		ok    bool
	}{
		"the smallest":        {agent, 1, true},
		"the largest":         {agent, math.MaxUint32, true},
		"negative":            {agent, -1, false},
		"too large":           {agent, math.MaxUint32 + 1, false},
		"of no known boot":    {nil, 1, false},
		"no map, and no boot": {nil, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			newest := v1alpha1.XDPNodeStateStatus{Agent: tc.agent, NewestMap: tc.id}
			l, err := ledgerOf(newest)
			if (err == nil) != tc.ok || err == nil && l.Newest.ID != uint32(tc.id) {
				t.Errorf("as the newest map: %v, %v", l.Newest, err)
			}
			counted := v1alpha1.XDPNodeStateStatus{Agent: tc.agent, Interfaces: []v1alpha1.NodeInterface{{Map: tc.id}}}
			if l, err = ledgerOf(counted); (err == nil) != tc.ok {
				t.Errorf("as the map of an interface: %v, %v", l.Maps, err)
			}
		})
	}
}

// The reported size is an eighth more than the report, and changes when that is exceeded or a quarter of it is not used.
func TestReportedSize(t *testing.T) {
	for _, tc := range []struct {
		saved int32
		size  int
		want  int32
	}{
		{0, 800, 900}, {900, 800, 900}, {900, 900, 900}, {900, 901, 1013}, {900, 675, 900}, {900, 674, 758},
		{0, math.MaxInt, math.MaxInt32/2 + math.MaxInt32/2/8},
	} {
		if got := reportBytes(tc.saved, tc.size); got != tc.want {
			t.Errorf("%d bytes with %d saved: %d, want %d", tc.size, tc.saved, got, tc.want)
		}
	}
}

// An interface that has just gone is left out, and the others are not.
func TestInterfacesThatAreGoneAreLeftOut(t *testing.T) {
	gone, eth0 := 5, plan.Interface{Name: "eth0", Index: 2}
	names := func(list []v1alpha1.NodeInterface) (names []string) {
		for _, i := range list {
			names = append(names, i.Name)
		}
		return names
	}
	want := []string{"eth0"}
	rejected := []plan.Rejected{{Index: gone, Counter: "a", Why: plan.ErrNoEthernet}, {Index: eth0.Index, Counter: "a", Why: plan.ErrNoEthernet}}
	if diff := cmp.Diff(want, names(rejections(rejected, byIndex([]plan.Interface{eth0})))); diff != "" {
		t.Errorf("rejected (-want +got):\n%s", diff)
	}
	s := nodeSnapshot{interfaces: []plan.Interface{eth0}}
	o := outcome{want: []plan.Attachment{{Index: gone, Mode: plan.Auto}, {Index: eth0.Index, Mode: plan.Auto}}}
	if diff := cmp.Diff(want, names((&Agent{}).entries(s, o, traffic.Ledger{}))); diff != "" {
		t.Errorf("wanted (-want +got):\n%s", diff)
	}
}

func TestADetachThatFailsDoesNotStopTheOthers(t *testing.T) {
	n := newNode(t, everyEthernet("a", v1alpha1.AttachNative))
	n.settle()
	n.edit(func(state *v1alpha1.XDPNodeState) { state.Spec.Counters[0].Inactive = true })
	n.steps, n.detachError = nil, fmt.Errorf("no")
	_, _, _ = n.pass()
	for _, step := range []string{"detach eth0 refused", "detach eth1 refused"} {
		if !slices.Contains(n.steps, step) {
			t.Errorf("%q has no %q", n.steps, step)
		}
	}
}

// Rates are means over at least a second. Sooner, those of the report before are kept.
func TestRatesOfReportsThatFollowSoon(t *testing.T) {
	last := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	totals := func(packets uint64) traffic.Ledger {
		var all traffic.Totals
		all[0] = traffic.Counts{Packets: packets, Bytes: 60 * packets}
		return traffic.Ledger{Accounts: map[string]traffic.Totals{"a": all}}
	}
	for after, want := range map[time.Duration]uint64{0: 3, time.Second - 1: 3, time.Second: 20, 2 * time.Second: 10} {
		state := &v1alpha1.XDPNodeState{}
		state.Spec.Counters = []v1alpha1.NodeCounter{counter("a")}
		reported := metav1.NewMicroTime(last)
		state.Status.ReportTime = &reported
		var before traffic.Totals
		before[0] = traffic.Counts{Packets: 10, Bytes: 600}
		var rates traffic.Rates
		rates[0] = traffic.Rate{PacketsPerSecond: 3}
		state.Status.Accounts = []v1alpha1.CounterAccount{{UID: "a", Counts: v1alpha1.CountsAndRatesOf(before, rates)}}
		got := v1alpha1.RatesOf(accounts(state, totals(10), totals(30), last.Add(after))[0].Counts)
		if got[0].PacketsPerSecond != want {
			t.Errorf("%v later the rate is %v, want %v", after, got[0].PacketsPerSecond, want)
		}
	}
}
