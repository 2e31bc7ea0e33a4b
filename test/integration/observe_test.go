package integration

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// observe watches every version of every object while the test runs, and fails it if in one of them the classes do
// not sum up to the total, or a total is less than in an earlier one.
func observe(t *testing.T) {
	t.Helper()
	watcher, err := client.NewWithWatch(c.Config(), client.Options{Scheme: c.Client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	counters, states := 0, 0
	for _, list := range []client.ObjectList{&v1alpha1.XDPCounterList{}, &v1alpha1.XDPNodeStateList{}} {
		w, err := watcher.Watch(ctx, list)
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			highest := map[string]traffic.Totals{}
			for e := range w.ResultChan() {
				if e.Type == watch.Deleted || e.Type == watch.Error {
					continue
				}
				switch o := e.Object.(type) {
				case *v1alpha1.XDPCounter:
					counters++
					checkCounter(t, o, highest)
				case *v1alpha1.XDPNodeState:
					states++
					checkState(t, o, highest)
				}
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		group.Wait()
		if counters == 0 || states == 0 {
			t.Errorf("observed %d versions of counters and %d of node states", counters, states)
		}
		t.Logf("observed %d versions of counters and %d of node states", counters, states)
	})
}

func checkCounter(t *testing.T, x *v1alpha1.XDPCounter, highest map[string]traffic.Totals) {
	if x.Status.Total == nil {
		return
	}
	want := [2]int64{x.Status.Total.Packets, x.Status.Total.Bytes}
	var protocols, families [2]int64
	for _, p := range x.Status.Protocols {
		protocols[0] += p.Packets
		protocols[1] += p.Bytes
	}
	for _, f := range x.Status.Families {
		families[0] += f.Packets
		families[1] += f.Bytes
	}
	if protocols != want || families != want {
		t.Errorf("counter %s, version %s: the protocols sum up to %v, the families to %v, the total is %v",
			x.Name, x.ResourceVersion, protocols, families, want)
	}
	checkGrowth(t, "counter "+x.Name, string(x.UID), v1alpha1.TotalsOfProtocols(x.Status.Protocols), highest)
}

func checkState(t *testing.T, s *v1alpha1.XDPNodeState, highest map[string]traffic.Totals) {
	for _, account := range s.Status.Accounts {
		var sum [2]int64
		for _, count := range account.Counts {
			sum[0] += count.Packets
			sum[1] += count.Bytes
		}
		if want := [2]int64{account.Packets, account.Bytes}; sum != want {
			t.Errorf("node state %s, version %s: the classes sum up to %v, the total is %v", s.Name, s.ResourceVersion, sum, want)
		}
		checkGrowth(t, fmt.Sprintf("account %s on %s", account.UID, s.Name), string(s.UID)+"/"+string(account.UID), v1alpha1.TotalsOf(account.Counts), highest)
	}
}

func checkGrowth(t *testing.T, what, key string, now traffic.Totals, highest map[string]traffic.Totals) {
	if before := highest[key]; now.Max(before) != now {
		t.Errorf("%s fell from %v to %v", what, before.Sum(), now.Sum())
	}
	highest[key] = now
}

// difference tells in which classes two totals differ.
func difference(got, want traffic.Totals) error {
	if got == want {
		return nil
	}
	text := ""
	for class := range traffic.Class(traffic.NumClasses) {
		if got[class] != want[class] && len(text) < 500 {
			text += fmt.Sprintf(" %s is %v, want %v;", class, got[class], want[class])
		}
	}
	return fmt.Errorf("totals differ:%s", text)
}
