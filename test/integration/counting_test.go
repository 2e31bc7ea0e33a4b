// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/util/audit"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// senderTo opens a sender to the node for the duration of the test.
func senderTo(t testing.TB, n *netnscluster.Node) *frames.Sender {
	t.Helper()
	sender, err := n.Sender()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sender.Close() })
	return sender
}

// send sends the frame the given number of times to the node, and adds it to sent.
func send(t testing.TB, n *netnscluster.Node, f frames.Frame, times int, sent *traffic.Totals) {
	t.Helper()
	sendOn(t, senderTo(t, n), f, times, sent)
}

func sendOn(t testing.TB, sender *frames.Sender, f frames.Frame, times int, sent *traffic.Totals) {
	t.Helper()
	if err := sender.Send(f.Data, times); err != nil {
		t.Error(err)
	}
	add(sent, f, times)
}

func add(sent *traffic.Totals, f frames.Frame, times int) {
	sent[f.Class] = sent[f.Class].Plus(traffic.Counts{Packets: uint64(times), Bytes: uint64(times * len(f.Data))})
}

// expectTotals waits until the counter has exactly these totals.
func expectTotals(t testing.TB, name string, want traffic.Totals) {
	t.Helper()
	eventually(t, func() error {
		x, err := get(t, name)
		if err != nil {
			return err
		}
		return audit.Difference(v1alpha1.TotalsOfProtocols(x.Status.Protocols), want)
	})
}

// accountOn returns the totals of a counter's account on a node.
func accountOn(t testing.TB, name, node string) (traffic.Totals, error) {
	t.Helper()
	x, err := get(t, name)
	if err != nil {
		return traffic.Totals{}, err
	}
	s := &v1alpha1.XDPNodeState{}
	if err := c.Client.Get(t.Context(), types.NamespacedName{Name: node}, s); err != nil {
		return traffic.Totals{}, err
	}
	for _, account := range s.Status.Accounts {
		if account.UID == x.UID {
			return v1alpha1.TotalsOf(account.Counts), nil
		}
	}
	return traffic.Totals{}, fmt.Errorf("counter %s has no account on %s", name, node)
}

func TestExactTotals(t *testing.T) {
	observe(t)
	counter(t, "classes", nil)
	expectReady(t, "classes", "True", v1alpha1.ReasonAllInterfacesAttached)

	var all traffic.Totals
	kinds := map[traffic.Class]bool{}
	var group sync.WaitGroup
	sent := make([]traffic.Totals, len(c.Nodes()))
	every := frames.All()
	for i, n := range c.Nodes() {
		sender := senderTo(t, n)
		group.Go(func() {
			for k, f := range every {
				sendOn(t, sender, f, 1+(k+i)%5, &sent[i])
				for _, cut := range f.Cuts { // also truncated within each header
					if cut > 14 && cut <= len(f.Data) {
						sendOn(t, sender, f.Cut(cut-1), 2, &sent[i])
					}
				}
			}
		})
	}
	group.Wait()
	for i, n := range c.Nodes() {
		for class := range sent[i].NonZero() {
			kinds[class] = true
		}
		all = all.Plus(sent[i])
		eventually(t, func() error {
			got, err := accountOn(t, "classes", n.Name)
			if err != nil {
				return err
			}
			return audit.Difference(got, sent[i])
		})
	}
	if len(kinds) != traffic.NumClasses {
		t.Errorf("frames of %d classes were sent, want %d", len(kinds), traffic.NumClasses)
	}
	expectTotals(t, "classes", all)
	sum := all.Sum()
	t.Logf("%d frames, %d bytes in %d classes on %d nodes: all counted", sum.Packets, sum.Bytes, len(kinds), len(c.Nodes()))

	x, err := get(t, "classes")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := x.Status.Summary.Nodes+" "+x.Status.Summary.Interfaces+" "+x.Status.Summary.Mode, "3/3 3/3 Generic"; got != want {
		t.Errorf("summary %q, want %q", got, want)
	}
}

func TestAgentKilled(t *testing.T) {
	observe(t)
	counter(t, "killed", nil)
	expectReady(t, "killed", "True", v1alpha1.ReasonAllInterfacesAttached)
	n := c.Nodes()[0]
	sender := senderTo(t, n)
	var sent traffic.Totals
	stop := make(chan struct{})
	finished := make(chan error)
	go func() {
		defer close(finished)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(500 * time.Microsecond):
			}
			f := frames.Common()[i%len(frames.Common())]
			if err := sender.Send(f.Data, 1); err != nil {
				finished <- err
				return
			}
			add(&sent, f, 1)
		}
	}()
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL} {
		time.Sleep(1200 * time.Millisecond) // longer than the report interval, so that some counts are reported and others are not
		if err := n.Agent.Signal(signal); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		if err := n.StartAgent(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(500 * time.Millisecond)
	close(stop)
	if err := <-finished; err != nil {
		t.Fatal(err)
	}
	expectTotals(t, "killed", sent)
	t.Logf("%d frames were sent while the agent was killed three times: all counted", sent.Sum().Packets)
}

func TestDeleteCounter(t *testing.T) {
	counter(t, "deleted", nil)
	expectReady(t, "deleted", "True", v1alpha1.ReasonAllInterfacesAttached)
	for _, n := range c.Nodes() {
		if left, err := n.Leftovers(); err != nil || len(left) == 0 {
			t.Errorf("nothing is attached on %s, but the counter is Ready: %v, %v", n.Name, left, err)
		}
	}
	x, err := get(t, "deleted")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Client.Delete(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	expectClean(t)
}

func TestCleanupWithoutAPIServer(t *testing.T) {
	counter(t, "cleaned", nil)
	expectReady(t, "cleaned", "True", v1alpha1.ReasonAllInterfacesAttached)
	n := c.Nodes()[1]
	if err := n.StopAgent(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second run has nothing to do
		if err := n.Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left, err := n.Leftovers(); err != nil || len(left) > 0 {
			t.Errorf("left after cleanup: %v, %v", left, err)
		}
	}
	if err := n.StartAgent(context.Background()); err != nil {
		t.Fatal(err)
	}
	expectReady(t, "cleaned", "True", v1alpha1.ReasonAllInterfacesAttached)
}

func TestNoNodesSelected(t *testing.T) {
	counter(t, "no-node", func(s *v1alpha1.XDPCounterSpec) {
		s.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "core"}}
	})
	counter(t, "no-interface", func(s *v1alpha1.XDPCounterSpec) {
		s.Interfaces = &v1alpha1.InterfaceSelector{Names: []v1alpha1.InterfacePattern{"wlan*"}}
	})
	expectMessage(t, "no-node", "False", v1alpha1.ReasonNoNodesSelected, "spec.nodeSelector selects no node")
	expectMessage(t, "no-interface", "False", v1alpha1.ReasonNoInterfacesMatched, "spec.interfaces selects no interface on 3 nodes: n1, n2, n3")
	edit(t, "no-interface", func(s *v1alpha1.XDPCounterSpec) { s.Interfaces.Names = []v1alpha1.InterfacePattern{"eth*"} })
	expectReady(t, "no-interface", "True", v1alpha1.ReasonAllInterfacesAttached)
}

func TestEditNodeSelector(t *testing.T) {
	observe(t)
	udp, tcp := frames.Common()[1], frames.Common()[0]
	var sent, older traffic.Totals
	counter(t, "edited", nil)
	counter(t, "older", func(s *v1alpha1.XDPCounterSpec) {
		s.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"name": "n1"}}
	})
	expectReady(t, "edited", "True", v1alpha1.ReasonAllInterfacesAttached)
	expectReady(t, "older", "True", v1alpha1.ReasonAllInterfacesAttached)
	for _, n := range c.Nodes() {
		send(t, n, udp, 10, &sent)
	}
	add(&older, udp, 10)
	expectTotals(t, "edited", sent)

	edit(t, "edited", func(s *v1alpha1.XDPCounterSpec) { s.Suspend = true })
	expectReady(t, "edited", "True", v1alpha1.ReasonSuspended)
	expectHooks(t, 1, 0, 0) // the other counter still selects n1
	var unseen traffic.Totals
	send(t, c.Nodes()[0], tcp, 7, &older)
	send(t, c.Nodes()[1], tcp, 7, &unseen)
	expectTotals(t, "older", older)
	expectTotals(t, "edited", sent)

	edit(t, "edited", func(s *v1alpha1.XDPCounterSpec) {
		s.Suspend = false
		s.NodeSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "name", Operator: metav1.LabelSelectorOpIn, Values: []string{"n1", "n2"}},
		}}
	})
	expectReady(t, "edited", "True", v1alpha1.ReasonAllInterfacesAttached)
	expectHooks(t, 1, 1, 0)
	for _, n := range c.Nodes()[:2] {
		send(t, n, tcp, 3, &sent)
	}
	send(t, c.Nodes()[2], tcp, 3, &unseen)
	add(&older, tcp, 3)
	expectTotals(t, "edited", sent)
	expectTotals(t, "older", older)
}

// expectHooks waits until each node has the given number of XDP programs attached.
func expectHooks(t *testing.T, want ...int) {
	t.Helper()
	eventually(t, func() error {
		var errs []error
		for i, n := range c.Nodes() {
			programs, err := n.Programs()
			if err != nil {
				return err
			}
			if len(programs) != want[i] {
				errs = append(errs, fmt.Errorf("%d programs on %s, want %d", len(programs), n.Name, want[i]))
			}
		}
		return errors.Join(errs...)
	})
}

func TestNodeLeaves(t *testing.T) {
	observe(t)
	udp := frames.Common()[1]
	var sent traffic.Totals
	add4 := func() *netnscluster.Node {
		n, err := c.AddNode(t.Context(), "n4", map[string]string{"pool": "edge"})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	n4 := add4()
	if err := n4.StartAgent(context.Background()); err != nil {
		t.Fatal(err)
	}
	counter(t, "leaving", nil)
	expectReady(t, "leaving", "True", v1alpha1.ReasonAllInterfacesAttached)
	for _, n := range c.Nodes() {
		send(t, n, udp, 20, &sent)
	}
	expectTotals(t, "leaving", sent)

	// The Node object is deleted and created again. Meanwhile the machine continues to count.
	object, err := n4.Object(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Client.Delete(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		err := c.Client.Get(t.Context(), types.NamespacedName{Name: "n4"}, &v1alpha1.XDPNodeState{})
		if err == nil {
			return errors.New("the node state of the departed node is still there")
		}
		return client.IgnoreNotFound(err)
	})
	expectTotals(t, "leaving", sent)
	object.ResourceVersion, object.UID = "", ""
	if err := c.Client.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := accountOn(t, "leaving", "n4")
		return err
	})
	expectReady(t, "leaving", "True", v1alpha1.ReasonAllInterfacesAttached)
	send(t, n4, udp, 5, &sent)
	expectTotals(t, "leaving", sent)

	// Then the machine is removed.
	if err := c.RemoveNode(n4); err != nil {
		t.Fatal(err)
	}
	if err := c.Client.Delete(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		x, err := get(t, "leaving")
		if err != nil {
			return err
		}
		if r := x.Status.Retired; r == nil || len(r.Departing) > 0 || len(r.Counts) != 1 || r.Counts[0].Packets != 25 {
			return fmt.Errorf("retired share is %v, want 25 packets", r)
		}
		if x.Status.Nodes.Selected != 3 {
			return fmt.Errorf("%d nodes are selected, want 3", x.Status.Nodes.Selected)
		}
		return nil
	})
	expectTotals(t, "leaving", sent)
}

func TestLeaderElection(t *testing.T) {
	observe(t)
	// The controller that TestMain started is the leader. When it is terminated, it releases the lease.
	second, err := startController("second")
	if err != nil {
		t.Fatal(err)
	}
	first := c.Controllers()[0]
	counter(t, "turns", nil)
	expectReady(t, "turns", "True", v1alpha1.ReasonAllInterfacesAttached)
	if err := first.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var sent traffic.Totals
	send(t, c.Nodes()[2], frames.Common()[0], 9, &sent)
	expectTotals(t, "turns", sent)
	if err := second.Ended(); err != nil {
		t.Error(err)
	}
}
