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

// The eth0 of a node gets nothing but what its sender sends, so every class has to be as sent. What the parts of the
// cluster tell each other goes over mgmt0.

// sent is what was sent in all, and thus the totals of all counters that existed from the start.
var sent traffic.Totals

// wireTo opens a sender to the node for the time of the test.
func wireTo(t *testing.T, n *kubeletcluster.Node) (sender *frames.Sender) {
	t.Helper()
	err := n.Client.Do(func() error {
		wire, err := netlink.LinkByName("wire0")
		if err != nil {
			return err
		}
		sender, err = frames.NewSender(wire.Attrs().Index)
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

// sendAll sends frames of all kinds to the node, and returns what that was.
func sendAll(t *testing.T, n *kubeletcluster.Node) (totals traffic.Totals) {
	t.Helper()
	wire := wireTo(t, n)
	for i, f := range frames.All() {
		times := 1 + i%5
		if err := wire.Send(f.Data, times); err != nil {
			t.Fatal(err)
		}
		add(&totals, f, times)
	}
	return totals
}

// flow is a sender to each node that goes on until end.
type flow struct {
	stop  func()
	group sync.WaitGroup
	sent  []traffic.Totals // by node
	errs  []error          // by node
}

// startFlow sends the frequent kinds of frames to all nodes, about a thousand a second to each.
func startFlow(t *testing.T) *flow {
	t.Helper()
	nodes := c.Nodes()
	stopped := make(chan struct{})
	f := &flow{
		stop: sync.OnceFunc(func() { close(stopped) }),
		sent: make([]traffic.Totals, len(nodes)), errs: make([]error, len(nodes)),
	}
	for i, n := range nodes {
		wire := wireTo(t, n)
		f.group.Go(func() {
			kinds := frames.Common()
			for k := 0; ; k++ {
				select {
				case <-stopped:
					return
				case <-time.After(time.Millisecond):
				}
				if f.errs[i] = wire.Send(kinds[k%len(kinds)].Data, 1); f.errs[i] != nil {
					return
				}
				add(&f.sent[i], kinds[k%len(kinds)], 1)
			}
		})
	}
	t.Cleanup(func() { // before the wires are closed
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

// expectTotals waits until all counters that existed from the start tell what was sent, exactly, in all classes.
func expectTotals(t *testing.T) {
	t.Helper()
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

// expectShare waits until the account of the counter quick on a node is exactly this.
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

// differs says whose totals are not as wanted, and in which classes.
func differs(who string, got, want traffic.Totals) error {
	if err := audit.Difference(got, want); err != nil {
		return fmt.Errorf("%s: %w", who, err)
	}
	return nil
}

// observe watches every version of every counter until the function that it returns is called, and fails the test if
// in one of them the parts do not sum up to the total, or a total is less than in an earlier one.
func observe(t *testing.T) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	highest := audit.Highest{}
	versions := 0
	group.Go(func() {
		for ctx.Err() == nil {
			// A watch ends with a change of the CRD.
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
