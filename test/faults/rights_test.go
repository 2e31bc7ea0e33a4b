package faults

import (
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/hack/cluster"
)

// Rights that an agent needs.
var (
	rightsToLoad   = []int{unix.CAP_BPF, unix.CAP_PERFMON}
	rightsToAttach = []int{unix.CAP_NET_ADMIN}
)

// notNeeded are all others: no agent gets them here, as in a cluster.
var notNeeded = func() []int {
	var all []int
	for capability := range unix.CAP_LAST_CAP + 1 {
		if !slices.Contains(rightsToLoad, capability) && !slices.Contains(rightsToAttach, capability) {
			all = append(all, capability)
		}
	}
	return all
}()

// Want of memory is not among them. A program or a map is refused for want of memory by the memory cgroup of the agent
// only when that is full, and then the kernel kills the agent for a page of its own heap as soon as for eight
// kilobytes of counts: that is "an agent is killed". And the agents here are in the cgroup of the tests.
func rightsFaults() []fault {
	return []fault{
		{
			name:   "an agent starts without the right to load programs, and later with it",
			inject: func(s *scene) error { return s.without(rightsToLoad) },
		},
		{
			name: "the interface is made again while the agent has no right to load programs", loses: "what arrives at the new interface until an agent attaches",
			inject: func(s *scene) error { return s.newWithout(rightsToLoad) },
			heal:   lostSoFar,
		},
		{
			name: "the interface is made again while the agent has no right to attach", loses: "what arrives at the new interface until an agent attaches",
			inject: func(s *scene) error { return s.newWithout(rightsToAttach) },
			heal:   lostSoFar,
		},
	}
}

// without lets an agent run without rights until it is healed.
func (s *scene) without(rights []int) error {
	s.undo = append(s.undo, func() error { return s.replace(cluster.Build{}) })
	if err := s.stopAgent(s.node, syscall.SIGTERM); err != nil {
		return err
	}
	return s.startAgent(s.node, cluster.Build{Without: rights})
}

// newWithout makes the interface again while the agent runs without rights, which the node state shall tell.
func (s *scene) newWithout(rights []int) error {
	if err := s.without(rights); err != nil {
		return err
	}
	if err := deleteData(s); err != nil {
		return err
	}
	if err := makeAgain(s); err != nil {
		return err
	}
	return s.tells(v1alpha1.ReasonPermissionDenied)
}
