package faults

import (
	"errors"
	"syscall"

	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

// stop ends the agent of the scene by a signal; it is started again to heal.
func (s *scene) stop(signal syscall.Signal) error {
	s.undo = append(s.undo, func() error { return s.startAgent(s.node, netnscluster.Build{}) })
	return s.stopAgent(s.node, signal)
}

// replace puts another build of the agent in the place of the one that runs.
func (s *scene) replace(b netnscluster.Build) error {
	if err := s.stopAgent(s.node, syscall.SIGTERM); err != nil {
		return err
	}
	return s.startAgent(s.node, b)
}

// upgrade puts a build with another program in the place of the agent, and waits until its program counts.
func (s *scene) upgrade(path string) error {
	program, _, err := hook(s.node)
	if err != nil {
		return err
	}
	if err := s.replace(netnscluster.Build{Path: path}); err != nil {
		return err
	}
	return s.changed(program)
}

// goBack is upgrade to the first build.
func (s *scene) goBack() error { return s.upgrade(agentBuild) }

func agentFaults() []fault {
	return []fault{
		{
			name:   "an agent is killed, and started again later",
			inject: func(s *scene) error { return s.stop(syscall.SIGKILL) },
		},
		{
			name:   "an agent is told to end, and started again later",
			inject: func(s *scene) error { return s.stop(syscall.SIGTERM) },
		},
		{
			name: "an agent is killed and started five times at random moments",
			inject: func(s *scene) error {
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
			inject: func(s *scene) error { return s.node.Agent.Pause() },
			heal:   func(s *scene) error { return s.node.Agent.Resume() },
		},
		{
			name:   "an agent is upgraded to one with another program, and back",
			inject: func(s *scene) error { return s.upgrade(otherProgram) },
			heal:   (*scene).goBack,
		},
		{
			name: "agents with two programs are killed in turn while they replace each other's",
			inject: func(s *scene) error {
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
			inject: func(s *scene) error { return s.upgrade(otherLayout) },
			heal:   downgrade,
		},
	}
}

// downgrade puts the usual agent in the place of one of a newer layout, as docs/datapath.md says: the counts are given
// up, once they are reported.
func downgrade(s *scene) error {
	return s.wire.held(func() error {
		err := s.eventually(func() error {
			accounted, err := s.accounted(s.ctx, s.counters[0], s.node)
			if err == nil && accounted != s.wire.arrived {
				err = errors.New("the agent of another layout has not reported what arrived: " + difference(accounted, s.wire.arrived))
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
