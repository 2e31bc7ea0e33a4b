// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/kubeletcluster"
	"github.com/xdp-operator/xdp-operator/test/util/audit"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// The eth0 of a node receives only the frames of its sender, so the counts of every class must equal the frames sent. The
// traffic of the cluster itself uses mgmt0.

// sent is the sum of all frames sent, which must be the totals of all counters that exist from the start.
var sent traffic.Totals

// senderTo opens a sender to the node for the duration of the test.
func senderTo(t *testing.T, n *kubeletcluster.Node) (sender *frames.Sender) {
	t.Helper()
	err := n.Client.Do(func() error {
		link, err := netlink.LinkByName("wire0")
		if err != nil {
			return err
		}
		sender, err = frames.NewSender(link.Attrs().Index)
		return err
	})
	if err != nil {
		t.Fatalf("open a sender to %s: %v", n.Name, err)
	}
	t.Cleanup(func() { _ = sender.Close() })
	return sender
}

func add(totals *traffic.Totals, f frames.Frame, times int) {
	totals[f.Class] = totals[f.Class].Plus(traffic.Counts{Packets: uint64(times), Bytes: uint64(times * len(f.Data))})
}

// sendAll sends frames of all kinds to the node, and returns their sum.
func sendAll(t *testing.T, n *kubeletcluster.Node) (totals traffic.Totals) {
	t.Helper()
	sender := senderTo(t, n)
	for i, f := range frames.All() {
		times := 1 + i%5
		if err := sender.Send(f.Data, times); err != nil {
			t.Fatal(err)
		}
		add(&totals, f, times)
	}
	return totals
}

// flow sends frames to each node until end is called.
type flow struct {
	stop  func()
	group sync.WaitGroup
	sent  []traffic.Totals // by node
	errs  []error          // by node
}

// startFlow sends common frames to all nodes, about a thousand per second to each.
func startFlow(t *testing.T) *flow {
	t.Helper()
	nodes := ownNodes()
	stopped := make(chan struct{})
	f := &flow{
		stop: sync.OnceFunc(func() { close(stopped) }),
		sent: make([]traffic.Totals, len(nodes)), errs: make([]error, len(nodes)),
	}
	for i, n := range nodes {
		sender := senderTo(t, n)
		f.group.Go(func() {
			kinds := frames.Common()
			for k := 0; ; k++ {
				select {
				case <-stopped:
					return
				case <-time.After(time.Millisecond):
				}
				if f.errs[i] = sender.Send(kinds[k%len(kinds)].Data, 1); f.errs[i] != nil {
					return
				}
				add(&f.sent[i], kinds[k%len(kinds)], 1)
			}
		})
	}
	t.Cleanup(func() { // before the senders are closed
		f.stop()
		f.group.Wait()
	})
	return f
}

// end ends the flow and adds it to what was sent.
func (f *flow) end(t *testing.T) {
	t.Helper()
	f.stop()
	f.group.Wait()
	var all traffic.Totals
	for i, totals := range f.sent {
		if f.errs[i] != nil {
			t.Fatal(f.errs[i])
		}
		all = all.Plus(totals)
	}
	sent = sent.Plus(all)
	t.Logf("%d frames were sent meanwhile", all.Sum().Packets)
}

func get(ctx context.Context, name string) (*v1alpha1.XDPCounter, error) {
	x := &v1alpha1.XDPCounter{}
	return x, api.Get(ctx, types.NamespacedName{Name: name}, x)
}

func state(ctx context.Context, node string) (*v1alpha1.XDPNodeState, error) {
	s := &v1alpha1.XDPNodeState{}
	return s, api.Get(ctx, types.NamespacedName{Name: node}, s)
}

// expectTotals waits until all counters that exist from the start have exactly the frames sent, in all classes.
func expectTotals(t *testing.T) {
	t.Helper()
	if existing != nil {
		existing.expectTotals(t)
		return
	}
	for _, name := range []string{"all-nodes", "quick"} {
		eventually(t, func() error {
			x, err := get(t.Context(), name)
			if err != nil {
				return err
			}
			return differs(name, v1alpha1.TotalsOfProtocols(x.Status.Protocols), sent)
		})
	}
	sum := sent.Sum()
	t.Logf("all counted: %d frames, %d bytes", sum.Packets, sum.Bytes)
}

// expectShare waits until the account of the counter quick on a node equals want.
func expectShare(t *testing.T, node string, want traffic.Totals) {
	t.Helper()
	eventually(t, func() error {
		x, err := get(t.Context(), "quick")
		if err != nil {
			return err
		}
		s, err := state(t.Context(), node)
		if err != nil {
			return err
		}
		for _, account := range s.Status.Accounts {
			if account.UID == x.UID {
				return differs("the share of "+node, v1alpha1.TotalsOf(account.Counts), want)
			}
		}
		return fmt.Errorf("counter quick has no account on %s", node)
	})
}

// differs returns an error that lists the classes that differ, or nil.
func differs(who string, got, want traffic.Totals) error {
	if err := audit.Difference(got, want); err != nil {
		return fmt.Errorf("%s: %w", who, err)
	}
	return nil
}

// observe watches every version of every counter until the returned function is called. The test fails if the parts of a
// version do not add up to the total, or if a total is less than in an earlier version.
func observe(t *testing.T) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	highest := audit.Highest{}
	versions := 0
	group.Go(func() {
		for ctx.Err() == nil {
			// A change of the CRD ends the watch.
			w, err := api.Watch(ctx, &v1alpha1.XDPCounterList{})
			if err != nil {
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
				continue
			}
			for e := range w.ResultChan() {
				x, ok := e.Object.(*v1alpha1.XDPCounter)
				if !ok || e.Type == watch.Deleted || x.Status.Total == nil {
					continue
				}
				versions++
				if err := highest.CheckCounter(x); err != nil {
					t.Error(err)
				}
			}
		}
	})
	var once sync.Once
	end = func() {
		once.Do(func() {
			cancel()
			group.Wait()
			t.Logf("observed %d versions of counters", versions)
			if versions == 0 {
				t.Error("observed nothing")
			}
		})
	}
	t.Cleanup(end)
	return end
}
