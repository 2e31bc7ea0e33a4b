// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

// result holds the accounting of one fault over all nodes, for the counter that selects all of them.
type result struct {
	sent, reported, lost, doubled traffic.Counts
}

// settle waits until all packets that arrived are reported, and checks the accounting: what arrived at each node is in its
// account and in the counters, except for the losses that the fault allows.
func (w *testEnv) settle(s *faultContext, before map[string]traffic.Totals) (result, error) {
	ctx := s.ctx
	if err := w.keepRetired(ctx, s); err != nil {
		return result{}, err
	}
	w.holdTraffic()
	defer w.releaseTraffic()
	for _, x := range w.senders {
		if err := x.burst(last, 1); err != nil || x.missing > 0 {
			return result{}, fmt.Errorf("%d of the last frames did not arrive at %s: %w", x.missing, x.node.Name, err)
		}
	}
	// All other frames arrived before the last one, so an account that includes the last one includes all.
	err := s.eventually(func() error { return w.hasLast(ctx) })
	r, mistakes := w.close(ctx, s, before)
	return r, errors.Join(err, mistakes)
}

// hasLast returns nil if each account and each counter includes all frames of the class that is sent last.
func (w *testEnv) hasLast(ctx context.Context) error {
	for _, c := range w.counters {
		var all traffic.Counts
		for _, x := range w.senders[:len(c.senders)] {
			accounted, err := w.accounted(ctx, c, x.node)
			if err != nil {
				return err
			}
			// If there are more than arrived, close returns an error.
			if got, want := accounted[last.Class], x.arrived[last.Class]; got.Packets < want.Packets {
				return fmt.Errorf("the last frames are not in the account of %s on %s: %v, want %v", c.Name, x.node.Name, got, want)
			}
			all = all.Plus(x.arrived[last.Class])
		}
		totals, err := w.totals(ctx, c)
		if err != nil {
			return err
		}
		if got := totals[last.Class]; got.Packets < all.Packets {
			return fmt.Errorf("the last frames are not in counter %s: %v, want %v", c.Name, got, all)
		}
	}
	return nil
}

// close compares all counts, and records the losses. The caller holds the traffic.
func (w *testEnv) close(ctx context.Context, s *faultContext, before map[string]traffic.Totals) (r result, err error) {
	var errs []error
	for i, c := range w.counters {
		var want traffic.Totals
		for _, x := range c.senders {
			at := entry{c.Name, x.node.Name}
			accounted, err := w.accounted(ctx, c, x.node)
			if err != nil {
				return r, err
			}
			lost, doubled := x.arrived.Since(accounted), accounted.Since(x.arrived)
			var atLeast, atMost traffic.Totals
			if x == s.sender {
				atLeast, atMost = s.certain, s.certain.Plus(s.possible)
			}
			errs = append(errs, exceeds("lost more than allowed", at, lost, atMost),
				exceeds("lost less than must be lost, so packets were counted twice", at, atLeast, lost),
				exceeds("counted twice", at, doubled, traffic.Totals{}))
			w.lost[at] = w.lost[at].Plus(lost)
			want = want.Plus(x.arrived.Since(w.lost[at]))
			if i == 0 {
				sent := x.arrived.Since(before[x.node.Name])
				r.sent = r.sent.Plus(sent.Sum())
				r.lost, r.doubled = r.lost.Plus(lost.Sum()), r.doubled.Plus(doubled.Sum())
			}
		}
		totals, err := w.totals(ctx, c)
		if err != nil {
			return r, err
		}
		if totals != want {
			errs = append(errs, fmt.Errorf("counter %s does not have the expected totals: %s", c.Name, difference(totals, want)))
		}
	}
	r.reported = r.sent.Since(r.lost).Plus(r.doubled)
	return r, errors.Join(errs...)
}

// accounted returns the sum of the counts of a node that are in its account, in the retired share of the counter, or in the
// recorded losses.
func (w *testEnv) accounted(ctx context.Context, c counter, n *netnscluster.Node) (traffic.Totals, error) {
	at := entry{c.Name, n.Name}
	state, err := w.state(ctx, n)
	if err != nil {
		return traffic.Totals{}, err
	}
	totals := w.kept[at].Plus(w.lost[at])
	for _, account := range state.Status.Accounts {
		if account.UID == c.UID {
			totals = totals.Plus(v1alpha1.TotalsOf(account.Counts))
		}
	}
	return totals, nil
}

// totals returns the totals in the counter's status.
func (w *testEnv) totals(ctx context.Context, c counter) (traffic.Totals, error) {
	x := &v1alpha1.XDPCounter{}
	if err := w.Client.Get(ctx, types.NamespacedName{Name: c.Name}, x); err != nil {
		return traffic.Totals{}, fmt.Errorf("get counter: %w", err)
	}
	return v1alpha1.TotalsOfProtocols(x.Status.Protocols), nil
}

// keepRetired records the growth of the counters' retired share, which is that of the fault's node.
func (w *testEnv) keepRetired(ctx context.Context, s *faultContext) error {
	state, err := w.state(ctx, s.node)
	if err != nil {
		return err
	}
	for _, c := range w.counters {
		x := &v1alpha1.XDPCounter{}
		if err := w.Client.Get(ctx, types.NamespacedName{Name: c.Name}, x); err != nil {
			return fmt.Errorf("get counter: %w", err)
		}
		if x.Status.Retired == nil {
			continue
		}
		// A share can stay in departing for any time, if its node state no longer exists.
		retired := v1alpha1.TotalsOf(x.Status.Retired.Counts)
		for _, d := range x.Status.Retired.Departing {
			if d.UID == state.UID {
				return fmt.Errorf("counter %s lists the existing node state of %s as departing", c.Name, d.Name)
			}
			retired = retired.Plus(v1alpha1.TotalsOf(d.Counts))
		}
		for _, other := range w.senders {
			retired = retired.Since(w.kept[entry{c.Name, other.node.Name}])
		}
		at := entry{c.Name, s.node.Name}
		w.kept[at] = w.kept[at].Plus(retired)
	}
	return nil
}

// exceeds returns an error that lists the classes in which got is more than most.
func exceeds(what string, at entry, got, most traffic.Totals) error {
	if excess := got.Since(most); !excess.IsZero() {
		return fmt.Errorf("counter %s on %s: %s: %s", at.counter, at.node, what, inWords(excess))
	}
	return nil
}

func difference(got, want traffic.Totals) string {
	return fmt.Sprintf("too much: %s; too little: %s", inWords(got.Since(want)), inWords(want.Since(got)))
}

// inWords formats the sum and the first few classes.
func inWords(t traffic.Totals) string {
	sum := t.Sum()
	if t.IsZero() {
		return "nothing"
	}
	var classes []string
	for class, c := range t.NonZero() {
		if len(classes) == 3 {
			classes = append(classes, "...")
			break
		}
		classes = append(classes, fmt.Sprintf("%s %d/%d B", class, c.Packets, c.Bytes))
	}
	return fmt.Sprintf("%d frames, %d bytes (%s)", sum.Packets, sum.Bytes, strings.Join(classes, ", "))
}
