// SPDX-License-Identifier: Apache-2.0

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
	"github.com/xdp-operator/xdp-operator/test/util/eventually"
)

// shortestInterval is the report interval of the counters.
const shortestInterval = time.Second

// fault is a fault on one node or in the control plane, and its repair.
type fault struct {
	name  string // a sentence that describes the fault
	loses string // describes the packets that can be lost; empty if none

	inject func(*faultContext) error
	heal   func(*faultContext) error // nil if no repair is needed
}

// faultContext is the context of one injected fault.
type faultContext struct {
	*testEnv
	ctx    context.Context
	random *rand.Rand
	node   *netnscluster.Node // the node of the fault
	sender *frameSender       // to that node

	since    *traffic.Totals // packets that arrive at the node after this, until it counts again, can be lost
	certain  traffic.Totals  // packets that must be lost
	possible traffic.Totals  // packets that can be lost in addition
	undo     []func() error  // undone by heal in reverse order
}

// play injects the fault, waits while frames arrive, heals it, and waits until everything is ready.
func (s *faultContext) play(f fault) error {
	// Some packets must be reported first, which could be lost or doubled.
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
	if err := s.eventually(func() error { return s.allReady(s.ctx) }); err != nil {
		return fmt.Errorf("not recovered: %w", err)
	}
	if s.since != nil {
		s.possible = s.possible.Plus(s.sender.total().Since(*s.since))
	}
	return nil
}

// rescue undoes the remaining changes after a failure, as far as possible.
func (s *faultContext) rescue(f fault) {
	if f.heal != nil {
		_ = f.heal(s)
	}
	for _, step := range slices.Backward(s.undo) {
		_ = step()
	}
}

// meanwhile waits while frames arrive. With a report interval of 1 s, this time sometimes includes a report and sometimes
// not.
func (s *faultContext) meanwhile() {
	s.sender.after(40 + s.random.IntN(160))
}

// moment waits for a random fraction of a second.
func (s *faultContext) moment() {
	s.sender.after(1 + s.random.IntN(60))
}

func (s *faultContext) eventually(check func() error) error {
	return eventually.Check(s.ctx, s.size.patience, check)
}

// soon is eventually with the time that an agent needs for its next passes.
func (s *faultContext) soon(check func() error) error {
	return eventually.Check(s.ctx, 10*shortestInterval, check)
}

// losesFromNow records that packets can be lost from now on until the node counts again.
func (s *faultContext) losesFromNow() {
	if s.since == nil {
		arrived := s.sender.total()
		s.since = &arrived
	}
}

// losesSinceReport records that packets since the last report can be lost, until the node counts again.
func (s *faultContext) losesSinceReport() error {
	reported, err := s.accounted(s.ctx, s.counters[0], s.node)
	if err != nil {
		return err
	}
	s.since = &reported
	return nil
}

// hasLost records packets that must be lost.
func (s *faultContext) hasLost(totals traffic.Totals) {
	s.certain = s.certain.Plus(totals)
}

// changed waits until eth0 has another program, or none.
func (s *faultContext) changed(program uint32) error {
	return s.eventually(func() error {
		now, _, err := hook(s.node)
		if err != nil {
			return err
		}
		if now == program {
			return fmt.Errorf("eth0 of %s still has program %d", s.node.Name, program)
		}
		return nil
	})
}

// reports waits until the node state reports that eth0 is not counted for the reason. An empty reason matches all but Pending.
func (s *faultContext) reports(reason string) error {
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
		return fmt.Errorf("the node state does not report that eth0 is not counted (reason %q), but:%s", reason, said)
	})
}
