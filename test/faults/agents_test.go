// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"syscall"

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
