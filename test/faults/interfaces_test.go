// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"syscall"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

const lostWhenNew = "what arrives at the new interface until it is attached"

// makeAgain creates eth0 after it was deleted.
func makeAgain(s *faultContext) error {
	s.losesFromNow()
	return s.node.AddData()
}

// deleteData deletes eth0 while no frames are in flight, because frames in the ring of the interface are lost with it.
func deleteData(s *faultContext) error { return s.sender.held(s.node.DeleteData) }

func interfaceFaults() []fault {
	return []fault{
		{
			name:   "the interface goes down, and up",
			inject: func(s *faultContext) error { return s.node.SetDataDown() },
			heal:   func(s *faultContext) error { return s.node.SetDataUp() },
		},
		{
			name: "the interface goes down and up five times",
			inject: func(s *faultContext) error {
				for range 5 {
					if err := s.node.SetDataDown(); err != nil {
						return err
					}
					s.moment()
					if err := s.node.SetDataUp(); err != nil {
						return err
					}
					s.moment()
				}
				return nil
			},
			heal: func(s *faultContext) error { return s.node.SetDataUp() },
		},
		{
			name:   "the default route goes, and comes",
			inject: func(s *faultContext) error { return s.node.DeleteDefaultRoute() },
			heal:   func(s *faultContext) error { return s.node.SetDataUp() },
		},
		{
			name:   "the interface is renamed, and back",
			inject: func(s *faultContext) error { return s.node.RenameData("eth0", "eth7") },
			heal:   func(s *faultContext) error { return s.node.RenameData("eth7", "eth0") },
		},
		{
			name: "the interface loses the name and the route by which it is selected, and gets them again", loses: "what arrives while it is not selected, and until it is attached again",
			inject: func(s *faultContext) error {
				s.losesFromNow()
				if err := s.node.DeleteDefaultRoute(); err != nil {
					return err
				}
				return s.node.RenameData("eth0", "ens9")
			},
			heal: func(s *faultContext) error { return errors.Join(s.node.RenameData("ens9", "eth0"), s.node.SetDataUp()) },
		},
		{
			name: "the interface is deleted, and made again", loses: lostWhenNew,
			inject: deleteData,
			heal:   makeAgain,
		},
		{
			name: "the interface is deleted and made again three times at random moments", loses: "what arrives at interfaces that go before they are reported, and at the last one until it is attached",
			inject: func(s *faultContext) error {
				for range 3 {
					if err := deleteData(s); err != nil {
						return err
					}
					s.moment()
					if err := makeAgain(s); err != nil {
						return err
					}
					s.moment()
				}
				return nil
			},
		},
		{
			name: "the interface is deleted and made again while no agent runs", loses: "what arrives at the new interface until an agent attaches",
			inject: func(s *faultContext) error {
				if err := s.stop(syscall.SIGKILL); err != nil {
					return err
				}
				s.moment()
				if err := deleteData(s); err != nil {
					return err
				}
				return makeAgain(s)
			},
			heal: lostSoFar,
		},
		{
			name: "the interface is moved into a pod, and back", loses: "what arrives while it is away, and until it is attached again",
			inject: func(s *faultContext) error {
				s.losesFromNow()
				return s.node.MoveDataAway()
			},
			heal: func(s *faultContext) error { return s.node.MoveDataBack() },
		},
		{
			name: "the MTU is raised to 9000 on both ends while counting is suspended, and lowered to 1500 while it goes on", loses: "what arrives while counting is suspended",
			inject: raiseMTU,
			heal: func(s *faultContext) error {
				s.sender.sendGiants(false)
				return s.node.SetDataMTU(1500)
			},
		},
	}
}

// raiseMTU follows docs/datapath.md: a driver rejects an MTU that is too large for the attached program, so counting is
// suspended meanwhile. Nothing is sent to the other nodes until they count again.
func raiseMTU(s *faultContext) error {
	for _, x := range s.senders {
		if x != s.sender {
			x.mu.Lock()
			defer x.mu.Unlock()
		}
	}
	s.losesFromNow()
	if err := s.suspend(true); err != nil {
		return err
	}
	err := s.eventually(func() error {
		program, _, err := hook(s.node)
		if err == nil && program != 0 {
			err = errors.New("eth0 is still counted")
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := errors.Join(s.node.SetDataMTU(9000), s.suspend(false)); err != nil {
		return err
	}
	if err := s.eventually(func() error { return s.allReady(s.ctx) }); err != nil {
		return err
	}
	s.possible, s.since = s.sender.total().Since(*s.since), nil // it is counted now
	s.sender.sendGiants(true)
	return nil
}

// suspend suspends all counters, or resumes them.
func (s *faultContext) suspend(yes bool) error {
	for _, c := range s.counters {
		base := c.DeepCopy()
		base.Spec.Suspend = !yes
		c.Spec.Suspend = yes
		if err := s.Client.Patch(s.ctx, c.XDPCounter, client.MergeFrom(base)); err != nil {
			return err
		}
	}
	return nil
}
