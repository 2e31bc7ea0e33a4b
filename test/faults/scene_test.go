package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

// shortestInterval is how often agents report here.
const shortestInterval = time.Second

// fault is something that goes wrong on one node or in the control plane, and how it is made good again.
type fault struct {
	name  string // a sentence that says what happens
	loses string // what may be lost, in words; empty: nothing

	inject func(*scene) error
	heal   func(*scene) error // nil: it heals without help
}

// scene is one fault that is happening.
type scene struct {
	*world
	ctx    context.Context
	random *rand.Rand
	node   *netnscluster.Node // the one concerned
	wire   *wire              // to that node

	since    *traffic.Totals // what arrives at the node after this, until it is being counted again, may be lost
	certain  traffic.Totals  // what is lost for certain
	possible traffic.Totals  // what may be lost beyond that
	undo     []func() error  // what heal undoes, the last first
}

// play injects the fault, lets it last while frames arrive, heals it and waits until all is well.
func (s *scene) play(f fault) error {
	// There is something in the books that could be lost or doubled.
	if err := s.eventually(func() error { return s.anythingReported(s.ctx) }); err != nil {
		return err
	}
	if err := f.inject(s); err != nil {
		return fmt.Errorf("inject: %w", err)
	}
	s.meanwhile()
	if f.heal != nil {
		if err := f.heal(s); err != nil {
			return fmt.Errorf("heal: %w", err)
		}
	}
	for len(s.undo) > 0 {
		step := s.undo[len(s.undo)-1]
		s.undo = s.undo[:len(s.undo)-1]
		if err := step(); err != nil {
			return fmt.Errorf("heal: %w", err)
		}
	}
	if err := s.eventually(func() error { return s.allWell(s.ctx) }); err != nil {
		return fmt.Errorf("not all is well again: %w", err)
	}
	if s.since != nil {
		s.possible = s.possible.Plus(s.wire.total().Since(*s.since))
	}
	return nil
}

// rescue undoes what is left to undo after a failure, as far as it goes.
func (s *scene) rescue(f fault) {
	if f.heal != nil {
		_ = f.heal(s)
	}
	for _, step := range slices.Backward(s.undo) {
		_ = step()
	}
}

// meanwhile lets some time pass in which frames arrive: with the interval of reports of 1 s, sometimes a report
// falls into it and sometimes none.
func (s *scene) meanwhile() {
	s.wire.after(40 + s.random.IntN(160))
}

// moment lets a random moment pass, of a fraction of a second.
func (s *scene) moment() {
	s.wire.after(1 + s.random.IntN(60))
}

func (s *scene) eventually(check func() error) error {
	return netnscluster.Eventually(s.ctx, s.size.patience, check)
}

// soon is eventually for what an agent does in its next passes, unless something holds it up.
func (s *scene) soon(check func() error) error {
	return netnscluster.Eventually(s.ctx, 10*shortestInterval, check)
}

// losesFromNow says that what arrives from now on may be lost, until all is well again.
func (s *scene) losesFromNow() {
	if s.since == nil {
		arrived := s.wire.total()
		s.since = &arrived
	}
}

// losesSinceReport says that what arrived since the last report may be lost, and what arrives until all is well again.
func (s *scene) losesSinceReport() error {
	reported, err := s.accounted(s.ctx, s.counters[0], s.node)
	if err != nil {
		return err
	}
	s.since = &reported
	return nil
}

// hasLost says that what arrived in the meantime is lost for certain.
func (s *scene) hasLost(totals traffic.Totals) {
	s.certain = s.certain.Plus(totals)
}

// changed waits until eth0 carries another program than this, or none.
func (s *scene) changed(program uint32) error {
	return s.eventually(func() error {
		now, _, err := hook(s.node)
		if err != nil {
			return err
		}
		if now == program {
			return fmt.Errorf("eth0 of %s still carries program %d", s.node.Name, program)
		}
		return nil
	})
}

// tells waits until the node state says that eth0 is not counted, for this reason or, if it is empty, for any but Pending.
func (s *scene) tells(reason string) error {
	return s.soon(func() error {
		state, err := s.state(s.ctx, s.node)
		if err != nil {
			return err
		}
		said := ""
		for _, i := range state.Status.Interfaces {
			if i.Name == "eth0" && i.State == v1alpha1.InterfaceFailed &&
				(i.Reason == reason || reason == "" && i.Reason != v1alpha1.ReasonPending) {
				return nil
			}
			said += fmt.Sprintf(" %q %s %s (%s)", i.Name, i.State, i.Reason, i.Message)
		}
		return fmt.Errorf("the node state does not tell that eth0 is not counted (reason %q), but of%s", reason, said)
	})
}
