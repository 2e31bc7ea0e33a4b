package faults

import (
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
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

// Want of memory comes from a filter of the agent's system calls, at the kernel's border: a real want of eight kilobytes
// for a map kills the agent for a page of its own heap as soon, which is "an agent is killed".
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
		{
			name: "the interface is made again while the kernel has no memory for a map", loses: "what arrives at the new interface until an agent attaches",
			inject: func(s *scene) error { return s.newWithoutMemory(unix.BPF_MAP_CREATE) },
			heal:   lostSoFar,
		},
		{
			name: "the interface is made again while the kernel has no memory for a program", loses: "what arrives at the new interface until an agent attaches",
			inject: func(s *scene) error { return s.newWithoutMemory(unix.BPF_PROG_LOAD) },
			heal:   lostSoFar,
		},
		{
			name: "the interface is made again while the kernel has no memory for a link", loses: "what arrives at the new interface until an agent attaches",
			inject: func(s *scene) error { return s.newWithoutMemory(unix.BPF_LINK_CREATE) },
			heal:   lostSoFar,
		},
	}
}

// without lets an agent run without rights until it is healed.
func (s *scene) without(rights []int) error { return s.instead(netnscluster.Build{Without: rights}) }

// instead lets another agent run until it is healed.
func (s *scene) instead(b netnscluster.Build) error {
	s.undo = append(s.undo, func() error { return s.replace(netnscluster.Build{}) })
	if err := s.stopAgent(s.node, syscall.SIGTERM); err != nil {
		return err
	}
	return s.startAgent(s.node, b)
}

// newWithout makes the interface again while the agent runs without rights, which the node state shall tell.
func (s *scene) newWithout(rights []int) error {
	return s.newBefore(netnscluster.Build{Without: rights}, v1alpha1.ReasonPermissionDenied)
}

// newWithoutMemory makes the interface again while the kernel has no memory for a command of bpf(2), which the node
// state shall tell.
func (s *scene) newWithoutMemory(command int) error {
	return s.newBefore(netnscluster.Build{NoMemoryFor: []int{command}}, v1alpha1.ReasonOutOfMemory)
}

// newBefore makes the interface again before an agent that will fail for that reason.
func (s *scene) newBefore(b netnscluster.Build, reason string) error {
	if err := s.instead(b); err != nil {
		return err
	}
	if err := deleteData(s); err != nil {
		return err
	}
	if err := makeAgain(s); err != nil {
		return err
	}
	return s.tells(reason)
}
