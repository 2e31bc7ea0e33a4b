package faults

import (
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/objects"
)

// The agent is the only writer of a status, and the controller of the object. What someone does to it by hand cannot
// be undone in every case, but must not stop the counting, nor let a total fall, nor what arrives later be lost.
func stateFaults() []fault {
	return []fault{
		{
			name: "the totals in a node state are lowered by hand",
			inject: func(s *scene) error {
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
			inject: func(s *scene) error {
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
			inject: func(s *scene) error {
				return s.edit(func(status *v1alpha1.XDPNodeStateStatus) { *status = v1alpha1.XDPNodeStateStatus{} })
			},
		},
		{
			name: "a node state is deleted by hand", loses: lostSinceReport,
			inject: func(s *scene) error {
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

// edit changes the status of the scene's node state as "kubectl edit --subresource=status" does.
func (s *scene) edit(change func(*v1alpha1.XDPNodeStateStatus)) error {
	state := &v1alpha1.XDPNodeState{}
	state.Name = s.node.Name
	return objects.EditStatus(s.ctx, s.Client, state, func() { change(&state.Status) })
}
