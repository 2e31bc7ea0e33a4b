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
)

// controllerNames are those of the two controllers, one of which leads.
var controllerNames = []string{"controller-a", "controller-b"}

// world is a cluster of three nodes with traffic, and the books.
type world struct {
	*netnscluster.Cluster
	*fleet
	size size

	wires    []*wire // by node
	watched  *observer
	counters []counter
	made     int // how often counters were made anew

	kept map[entry]traffic.Totals // the share of nodes that left, in the retired counts
	lost map[entry]traffic.Totals // what was lost, as stated
}

// counter is an XDPCounter, and the nodes that it selects.
type counter struct {
	*v1alpha1.XDPCounter
	wires []*wire
}

// entry is a place in the books.
type entry struct{ counter, node string }

func newWorld(ctx context.Context, box *sandbox.Sandbox, dir string) (_ *world, err error) {
	w := &world{size: theSize()}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.end())
		}
	}()
	if w.Cluster, err = netnscluster.Start(ctx, box, netnscluster.Options{Root: root, Dir: dir}); err != nil {
		return w, err
	}
	w.fleet = newFleet(w.Cluster, dir)
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
		wire, err := newWire(n)
		if err != nil {
			return w, err
		}
		w.wires = append(w.wires, wire)
	}
	if w.watched, err = newObserver(w.Cluster); err != nil {
		return w, err
	}
	return w, w.openBooks(ctx)
}

func (w *world) end() error {
	var errs []error
	for _, x := range w.wires {
		errs = append(errs, x.end())
	}
	if w.fleet != nil {
		errs = append(errs, w.fleet.end())
	}
	if w.watched != nil {
		w.watched.end()
	}
	if w.Cluster != nil {
		errs = append(errs, w.Stop())
	}
	return errors.Join(errs...)
}

// openBooks makes the counters, anew if there are some, and opens the books with nothing in them. After a fault that
// was not borne it lets the next one begin with sound books.
func (w *world) openBooks(ctx context.Context) error {
	w.holdTraffic()
	defer w.releaseTraffic()
	for _, c := range w.counters {
		if err := client.IgnoreNotFound(w.Client.Delete(ctx, c.XDPCounter)); err != nil {
			return err
		}
	}
	if err := netnscluster.Eventually(ctx, w.size.patience, func() error { return w.nothingLeft(ctx) }); err != nil {
		return err
	}
	w.made++
	everything := &v1alpha1.InterfaceSelector{Primary: true, Names: []v1alpha1.InterfacePattern{"eth*"}}
	edge := &metav1.LabelSelector{MatchLabels: map[string]string{"pool": "edge"}}
	w.counters = []counter{
		{XDPCounter: &v1alpha1.XDPCounter{}, wires: w.wires},
		{XDPCounter: &v1alpha1.XDPCounter{Spec: v1alpha1.XDPCounterSpec{NodeSelector: edge}}, wires: w.wires[:2]},
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
	for _, x := range w.wires {
		x.arrived = traffic.Totals{}
	}
	return netnscluster.Eventually(ctx, w.size.patience, func() error { return w.allWell(ctx) })
}

// nothingLeft is nil if no node state and nothing on the nodes is left of earlier counters.
func (w *world) nothingLeft(ctx context.Context) error {
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

// allWell is nil if each node's eth0 is being counted, and its node state and the counters say so.
func (w *world) allWell(ctx context.Context) error {
	for _, n := range w.Nodes() {
		if err := counting(n); err != nil {
			return err
		}
		if err := w.saysAttached(ctx, n); err != nil {
			return err
		}
	}
	for _, c := range w.counters {
		x := &v1alpha1.XDPCounter{}
		if err := w.Client.Get(ctx, types.NamespacedName{Name: c.Name}, x); err != nil {
			return err
		}
		ready := x.Status.Conditions[0]
		if ready.Status != metav1.ConditionTrue || ready.ObservedGeneration != x.Generation || int(x.Status.Nodes.Ready) != len(c.wires) {
			return fmt.Errorf("counter %s is Ready=%s, %s: %s", x.Name, ready.Status, ready.Reason, ready.Message)
		}
	}
	return nil
}

// anythingReported is nil if each node has reported something of late.
func (w *world) anythingReported(ctx context.Context) error {
	for _, x := range w.wires {
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

// saysAttached is nil if the node state tells of one interface, eth0, and that it is attached.
func (w *world) saysAttached(ctx context.Context, n *netnscluster.Node) error {
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
		return fmt.Errorf("node state %s follows generation %d of %d and tells of%s", n.Name, state.Status.ObservedGeneration, state.Generation, said)
	}
	return nil
}

func (w *world) state(ctx context.Context, n *netnscluster.Node) (*v1alpha1.XDPNodeState, error) {
	state := &v1alpha1.XDPNodeState{}
	if err := w.Client.Get(ctx, types.NamespacedName{Name: n.Name}, state); err != nil {
		return nil, fmt.Errorf("get node state %s: %w", n.Name, err)
	}
	return state, nil
}

func (w *world) holdTraffic() {
	for _, x := range w.wires {
		x.mu.Lock()
	}
}

func (w *world) releaseTraffic() {
	for _, x := range w.wires {
		x.mu.Unlock()
	}
}
