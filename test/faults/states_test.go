// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/objects"
)

// Only the agent writes the status of a node state, and only the controller writes the rest. Changes by others cannot be
// undone in every case, but they must not stop counting, decrease a total, or lose packets that arrive later.
func stateFaults() []fault {
	return []fault{
		{
			name: "the totals in a node state are lowered by hand",
			inject: func(s *faultContext) error {
				return s.edit(func(status *v1alpha1.XDPNodeStateStatus) {
					for i := range status.Accounts {
						a := &status.Accounts[i]
						for k := range a.Counts {
							a.Counts[k].Packets /= 2
							a.Counts[k].Bytes /= 2
						}
					}
				})
			},
		},
		{
			name: "the readings in a node state are lowered by hand",
			inject: func(s *faultContext) error {
				return s.edit(func(status *v1alpha1.XDPNodeStateStatus) {
					for i := range status.Interfaces {
						for k := range status.Interfaces[i].Counts {
							status.Interfaces[i].Counts[k].Packets /= 2
							status.Interfaces[i].Counts[k].Bytes /= 2
						}
					}
				})
			},
		},
		{
			name: "the status of a node state is emptied by hand",
			inject: func(s *faultContext) error {
				return s.edit(func(status *v1alpha1.XDPNodeStateStatus) { *status = v1alpha1.XDPNodeStateStatus{} })
			},
		},
		{
			name: "a node state is deleted by hand", loses: lostSinceReport,
			inject: func(s *faultContext) error {
				if err := s.losesSinceReport(); err != nil {
					return err
				}
				state, err := s.state(s.ctx, s.node)
				if err != nil {
					return err
				}
				if err := s.Client.Delete(s.ctx, state); err != nil {
					return err
				}
				return s.eventually(func() error { return s.gone(state) })
			},
		},
	}
}

// edit changes the status of the node state as "kubectl edit --subresource=status" does.
func (s *faultContext) edit(change func(*v1alpha1.XDPNodeStateStatus)) error {
	state := &v1alpha1.XDPNodeState{}
	state.Name = s.node.Name
	return objects.EditStatus(s.ctx, s.Client, state, func() { change(&state.Status) })
}
