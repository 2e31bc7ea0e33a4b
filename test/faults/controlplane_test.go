// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

// outage waits for the duration of an outage.
func (s *faultContext) outage() {
	s.sender.after(int(s.size.outage / beat))
}

// during returns a function that calls begin, then more, and after an outage end.
func during(begin, end func(*faultContext) error, more ...func(*faultContext) error) func(*faultContext) error {
	return func(s *faultContext) error {
		if err := begin(s); err != nil {
			return err
		}
		s.undo = append(s.undo, func() error { return end(s) })
		for _, step := range more {
			s.moment()
			if err := step(s); err != nil {
				return err
			}
		}
		s.outage()
		return nil
	}
}

func stopAPIServer(s *faultContext) error  { return s.StopAPIServer() }
func startAPIServer(s *faultContext) error { return s.StartAPIServer() }

func controlPlaneFaults() []fault {
	return []fault{
		{
			name:   "the API server is away",
			inject: during(stopAPIServer, startAPIServer),
		},
		{
			name:   "the API server stands still, and goes on",
			inject: during(func(s *faultContext) error { return s.PauseAPIServer() }, func(s *faultContext) error { return s.ResumeAPIServer() }),
		},
		{
			name:   "etcd is killed, and started again with its data",
			inject: during(func(s *faultContext) error { return s.KillEtcd() }, func(s *faultContext) error { return s.StartEtcd() }),
		},
		{
			name:   "etcd stands still, and goes on",
			inject: during(func(s *faultContext) error { return s.PauseEtcd() }, func(s *faultContext) error { return s.ResumeEtcd() }),
		},
		{
			name: "an agent is killed and started while the API server is away",
			inject: during(stopAPIServer, startAPIServer, func(s *faultContext) error {
				if err := s.stopAgent(s.node, syscall.SIGKILL); err != nil {
					return err
				}
				return s.startAgent(s.node, netnscluster.Build{})
			}),
		},
		{
			name: "the interface is deleted and made again while the API server is away", loses: lostWhenNew,
			inject: during(stopAPIServer, startAPIServer, deleteData, makeAgain, func(s *faultContext) error {
				return s.eventually(func() error { return counting(s.node) })
			}, func(s *faultContext) error {
				s.possible, s.since = s.sender.total().Since(*s.since), nil // it is counted now
				return nil
			}),
		},
		{
			name:   "someone else writes the node state between an agent's reading and writing",
			inject: disturb,
		},
	}
}

// disturb writes annotations and status of the node state in turn for a while, as fast as it goes.
func disturb(s *faultContext) error {
	key := types.NamespacedName{Name: s.node.Name}
	for end := time.Now().Add(2 * shortestInterval); time.Now().Before(end); {
		state := &v1alpha1.XDPNodeState{}
		if err := s.Client.Get(s.ctx, key, state); err != nil {
			return err
		}
		base := state.DeepCopy()
		metav1.SetMetaDataAnnotation(&state.ObjectMeta, "example.org/touched", time.Now().String())
		if err := s.Client.Patch(s.ctx, state, client.MergeFrom(base)); err != nil {
			return err
		}
		state.Status.Conditions = append(state.Status.Conditions, metav1.Condition{
			Type: "Touched", Status: metav1.ConditionTrue, Reason: "ByHand", LastTransitionTime: metav1.Now(),
		})
		if len(state.Status.Conditions) > 5 {
			state.Status.Conditions = state.Status.Conditions[:1]
		}
		if err := s.Client.Status().Update(s.ctx, state); client.IgnoreNotFound(ignoreConflict(err)) != nil {
			return err
		}
	}
	return nil
}
