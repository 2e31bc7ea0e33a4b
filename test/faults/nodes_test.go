// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"syscall"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

func nodeFaults() []fault {
	return []fault{
		{
			name: "the Node object is deleted, and created again", loses: lostSinceReport,
			inject: func(s *faultContext) error { return s.depart() },
		},
		{
			name: "the Node object is deleted and created again while no agent runs", loses: "what arrived since the last report, until an agent reports again",
			inject: func(s *faultContext) error {
				if err := s.stop(syscall.SIGKILL); err != nil {
					return err
				}
				return s.depart()
			},
		},
		{
			name: "the Node object is deleted and created again, and the controllers are killed meanwhile", loses: lostSinceReport,
			inject: func(s *faultContext) error {
				return s.depart(func() error {
					for _, name := range controllerNames {
						s.sender.after(s.random.IntN(10))
						if err := s.stopController(name, syscall.SIGKILL); err != nil {
							return err
						}
					}
					for _, name := range controllerNames {
						if err := s.startController(name); err != nil {
							return err
						}
					}
					return s.led()
				})
			},
		},
		{
			name: "the machine loses its power and restarts: another boot, other interfaces, no pins", loses: lostSinceReport,
			inject: func(s *faultContext) error {
				err := s.sender.held(func() error {
					if err := s.stopAgent(s.node, syscall.SIGKILL); err != nil {
						return err
					}
					reported, err := s.accounted(s.ctx, s.counters[0], s.node)
					if err != nil {
						return err
					}
					s.hasLost(s.sender.arrived.Since(reported))
					return s.node.PowerOff()
				})
				if err != nil {
					return err
				}
				s.meanwhile()
				s.losesFromNow()
				if err := s.node.PowerOn(); err != nil {
					return err
				}
				return s.startAgent(s.node, netnscluster.Build{})
			},
		},
	}
}

// depart deletes the Node object, waits until the node state is deleted, and creates the Node again.
func (s *faultContext) depart(meanwhile ...func() error) error {
	if err := s.losesSinceReport(); err != nil {
		return err
	}
	object, err := s.node.Object(s.ctx)
	if err != nil {
		return err
	}
	state, err := s.state(s.ctx, s.node)
	if err != nil {
		return err
	}
	if err := s.Client.Delete(s.ctx, object); err != nil {
		return err
	}
	object.ResourceVersion, object.UID = "", ""
	s.undo = append(s.undo, func() error { return s.Client.Create(s.ctx, object) })
	for _, step := range meanwhile {
		if err := step(); err != nil {
			return err
		}
	}
	return s.eventually(func() error { return s.gone(state) })
}

// gone returns nil if the node state no longer exists.
func (s *faultContext) gone(state *v1alpha1.XDPNodeState) error {
	now, err := s.state(s.ctx, s.node)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case now.UID == state.UID:
		return errors.New("the node state is still there")
	}
	return nil
}
