// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"fmt"
	"syscall"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

// stop terminates the agent with a signal. Healing starts it again.
func (s *faultContext) stop(signal syscall.Signal) error {
	s.undo = append(s.undo, func() error { return s.startAgent(s.node, netnscluster.Build{}) })
	return s.stopAgent(s.node, signal)
}

// replace replaces the running agent by another build.
func (s *faultContext) replace(b netnscluster.Build) error {
	if err := s.stopAgent(s.node, syscall.SIGTERM); err != nil {
		return err
	}
	return s.startAgent(s.node, b)
}

// upgrade replaces the agent by a build with another program, and waits until this program counts.
func (s *faultContext) upgrade(path string) error {
	program, _, err := hook(s.node)
	if err != nil {
		return err
	}
	if err := s.replace(netnscluster.Build{Path: path}); err != nil {
		return err
	}
	return s.changed(program)
}

// goBack replaces the agent by the first build.
func (s *faultContext) goBack() error { return s.upgrade(agentBuild) }

// setMode changes the mode of all counters, and waits until all nodes count in it. Meanwhile nothing is sent, so nothing is lost.
func (s *faultContext) setMode(mode v1alpha1.AttachMode) error {
	if err := s.eventually(func() error { return s.allReady(s.ctx) }); err != nil {
		return err
	}
	s.holdTraffic()
	defer s.releaseTraffic()
	for _, c := range s.counters {
		base := c.DeepCopy()
		c.Spec.AttachMode = mode
		if err := s.Client.Patch(s.ctx, c.XDPCounter, client.MergeFrom(base)); err != nil {
			return err
		}
	}
	return s.eventually(func() error {
		for _, n := range s.Nodes() {
			state, err := s.state(s.ctx, n)
			if err != nil {
				return err
			}
			for _, i := range state.Status.Interfaces {
				if mode == v1alpha1.AttachGeneric && i.Mode != v1alpha1.AttachGeneric {
					return fmt.Errorf("%s of %s is attached in %s mode", i.Name, n.Name, i.Mode)
				}
			}
		}
		return s.allReady(s.ctx)
	})
}

func agentFaults() []fault {
	return []fault{
		{
			name:   "an agent is killed, and started again later",
			inject: func(s *faultContext) error { return s.stop(syscall.SIGKILL) },
		},
		{
			name:   "an agent is terminated, and started again later",
			inject: func(s *faultContext) error { return s.stop(syscall.SIGTERM) },
		},
		{
			name: "an agent is killed during a transfer by TCP in large segments, in generic mode",
			inject: func(s *faultContext) error {
				if err := s.setMode(v1alpha1.AttachGeneric); err != nil {
					return err
				}
				s.undo = append(s.undo, func() error { return s.setMode(v1alpha1.AttachAuto) })
				return s.sender.held(func() error {
					return s.sender.transfer(s.ctx, 8<<20, func() error { return s.stop(syscall.SIGKILL) })
				})
			},
		},
		{
			name: "an agent is killed and started five times at random moments",
			inject: func(s *faultContext) error {
				for range 5 {
					if err := s.stopAgent(s.node, syscall.SIGKILL); err != nil {
						return err
					}
					s.moment()
					if err := s.startAgent(s.node, netnscluster.Build{}); err != nil {
						return err
					}
					s.moment()
				}
				return nil
			},
		},
		{
			name:   "an agent stands still, and goes on",
			inject: func(s *faultContext) error { return s.node.Agent.Pause() },
			heal:   func(s *faultContext) error { return s.node.Agent.Resume() },
		},
		{
			name:   "an agent is upgraded to one with another program, and back",
			inject: func(s *faultContext) error { return s.upgrade(otherProgram) },
			heal:   (*faultContext).goBack,
		},
		{
			name: "agents with two programs are killed in turn while they replace each other's",
			inject: func(s *faultContext) error {
				for i := range 6 {
					if err := s.stopAgent(s.node, syscall.SIGKILL); err != nil {
						return err
					}
					path := []string{otherProgram, agentBuild}[i%2]
					if err := s.startAgent(s.node, netnscluster.Build{Path: path}); err != nil {
						return err
					}
					s.moment()
				}
				return nil
			},
		},
		{
			name:   "an agent is upgraded to one with counts of another layout, and back by way of a cleanup while nothing arrives",
			inject: func(s *faultContext) error { return s.upgrade(otherLayout) },
			heal:   downgrade,
		},
	}
}

// downgrade replaces an agent of a newer layout by the usual one, as docs/datapath.md describes: the maps are removed after
// their counts are reported.
func downgrade(s *faultContext) error {
	return s.sender.held(func() error {
		err := s.eventually(func() error {
			accounted, err := s.accounted(s.ctx, s.counters[0], s.node)
			if err == nil && accounted != s.sender.arrived {
				err = errors.New("the agent of another layout has not reported what arrived: " + difference(accounted, s.sender.arrived))
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := s.stopAgent(s.node, syscall.SIGTERM); err != nil {
			return err
		}
		if err := errors.Join(s.node.Cleanup(s.ctx), s.startAgent(s.node, netnscluster.Build{})); err != nil {
			return err
		}
		return s.eventually(func() error { return counting(s.node) })
	})
}
