// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
	"github.com/xdp-operator/xdp-operator/test/util/eventually"
)

// controllerNames are the names of the two controllers, of which one is the leader.
var controllerNames = []string{"controller-a", "controller-b"}

// testEnv is a cluster of three nodes with traffic, and the accounting.
type testEnv struct {
	*netnscluster.Cluster
	*processes
	size size

	senders  []*frameSender // by node
	watched  *observer
	counters []counter
	made     int // number of times that the counters were created

	kept map[entry]traffic.Totals // counts of nodes that have left, in the retired share
	lost map[entry]traffic.Totals // recorded losses
}

// counter is an XDPCounter and the senders to the nodes that it selects.
type counter struct {
	*v1alpha1.XDPCounter
	senders []*frameSender
}

// entry identifies an account.
type entry struct{ counter, node string }

func newEnv(ctx context.Context, box *sandbox.Sandbox, dir string) (_ *testEnv, err error) {
	w := &testEnv{size: theSize()}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.end())
		}
	}()
	if w.Cluster, err = netnscluster.Start(ctx, box, netnscluster.Options{Root: root, Dir: dir}); err != nil {
		return w, err
	}
	w.processes = newProcesses(w.Cluster, dir)
	for _, name := range controllerNames {
		if err := w.startController(name); err != nil {
			return w, err
		}
	}
	for _, node := range []struct{ name, pool string }{{"n1", "edge"}, {"n2", "edge"}, {"n3", "core"}} {
		n, err := w.AddNode(ctx, node.name, map[string]string{"pool": node.pool})
		if err != nil {
			return w, err
		}
		if err := w.startAgent(n, netnscluster.Build{}); err != nil {
			return w, err
		}
		sender, err := newFrameSender(n)
		if err != nil {
			return w, err
		}
		w.senders = append(w.senders, sender)
	}
	if w.watched, err = newObserver(w.Cluster); err != nil {
		return w, err
	}
	return w, w.resetAccounting(ctx)
}

func (w *testEnv) end() error {
	var errs []error
	for _, x := range w.senders {
		errs = append(errs, x.end())
	}
	if w.processes != nil {
		errs = append(errs, w.processes.end())
	}
	if w.watched != nil {
		w.watched.end()
	}
	if w.Cluster != nil {
		errs = append(errs, w.Stop())
	}
	return errors.Join(errs...)
}

// resetAccounting creates new counters, and resets the accounting to zero. After a failure, the next fault can start with it.
func (w *testEnv) resetAccounting(ctx context.Context) error {
	w.holdTraffic()
	defer w.releaseTraffic()
	for _, c := range w.counters {
		if err := client.IgnoreNotFound(w.Client.Delete(ctx, c.XDPCounter)); err != nil {
			return err
		}
	}
	if err := eventually.Check(ctx, w.size.patience, func() error { return w.nothingLeft(ctx) }); err != nil {
		return err
	}
	w.made++
	everything := &v1alpha1.InterfaceSelector{Primary: true, Names: []v1alpha1.InterfacePattern{"eth*"}}
	edge := &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "edge"}}
	w.counters = []counter{
		{XDPCounter: &v1alpha1.XDPCounter{}, senders: w.senders},
		{XDPCounter: &v1alpha1.XDPCounter{Spec: v1alpha1.XDPCounterSpec{NodeSelector: edge}}, senders: w.senders[:2]},
	}
	for i, name := range []string{"all", "edge"} {
		c := w.counters[i]
		c.Name = fmt.Sprintf("%s-%d", name, w.made)
		c.Spec.Interfaces = everything
		c.Spec.ReportInterval = metav1.Duration{Duration: shortestInterval}
		if err := w.Client.Create(ctx, c.XDPCounter); err != nil {
			return err
		}
	}
	w.kept, w.lost = map[entry]traffic.Totals{}, map[entry]traffic.Totals{}
	for _, x := range w.senders {
		x.arrived = traffic.Totals{}
	}
	return eventually.Check(ctx, w.size.patience, func() error { return w.allReady(ctx) })
}

// nothingLeft returns nil if no node state exists, and nothing of earlier counters is left on the nodes.
func (w *testEnv) nothingLeft(ctx context.Context) error {
	states := &v1alpha1.XDPNodeStateList{}
	if err := w.Client.List(ctx, states); err != nil {
		return err
	}
	if len(states.Items) > 0 {
		return fmt.Errorf("%d node states are left", len(states.Items))
	}
	for _, n := range w.Nodes() {
		if left, err := n.Leftovers(); err != nil || len(left) > 0 {
			return fmt.Errorf("left on %s: %v, %w", n.Name, left, err)
		}
	}
	return nil
}

// allReady returns nil if each node's eth0 is counted, and the node states and the counters report it.
func (w *testEnv) allReady(ctx context.Context) error {
	for _, n := range w.Nodes() {
		if err := counting(n); err != nil {
			return err
		}
		if err := w.reportsAttached(ctx, n); err != nil {
			return err
		}
	}
	for _, c := range w.counters {
		x := &v1alpha1.XDPCounter{}
		if err := w.Client.Get(ctx, types.NamespacedName{Name: c.Name}, x); err != nil {
			return err
		}
		ready := x.Status.Conditions[0]
		if ready.Status != metav1.ConditionTrue || ready.ObservedGeneration != x.Generation || int(x.Status.Nodes.Ready) != len(c.senders) {
			return fmt.Errorf("counter %s is Ready=%s, %s: %s", x.Name, ready.Status, ready.Reason, ready.Message)
		}
	}
	return nil
}

// anythingReported returns nil if each node has reported counts since the last reset.
func (w *testEnv) anythingReported(ctx context.Context) error {
	for _, x := range w.senders {
		accounted, err := w.accounted(ctx, w.counters[0], x.node)
		if err != nil {
			return err
		}
		if got := accounted.Since(w.lost[entry{w.counters[0].Name, x.node.Name}]).Since(w.kept[entry{w.counters[0].Name, x.node.Name}]); got.IsZero() {
			return fmt.Errorf("%s has reported nothing", x.node.Name)
		}
	}
	return nil
}

// reportsAttached returns nil if the node state reports exactly one interface, eth0, as attached.
func (w *testEnv) reportsAttached(ctx context.Context, n *netnscluster.Node) error {
	state, err := w.state(ctx, n)
	if err != nil {
		return err
	}
	list := state.Status.Interfaces
	if state.Status.ObservedGeneration != state.Generation || len(list) != 1 || list[0].Name != "eth0" || list[0].State != v1alpha1.InterfaceAttached {
		said := ""
		for _, i := range list {
			said += fmt.Sprintf(" %q %s %s (%s)", i.Name, i.State, i.Reason, i.Message)
		}
		return fmt.Errorf("node state %s has observed generation %d of %d and reports%s", n.Name, state.Status.ObservedGeneration, state.Generation, said)
	}
	return nil
}

func (w *testEnv) state(ctx context.Context, n *netnscluster.Node) (*v1alpha1.XDPNodeState, error) {
	state := &v1alpha1.XDPNodeState{}
	if err := w.Client.Get(ctx, types.NamespacedName{Name: n.Name}, state); err != nil {
		return nil, fmt.Errorf("get node state %s: %w", n.Name, err)
	}
	return state, nil
}

func (w *testEnv) holdTraffic() {
	for _, x := range w.senders {
		x.mu.Lock()
	}
}

func (w *testEnv) releaseTraffic() {
	for _, x := range w.senders {
		x.mu.Unlock()
	}
}
