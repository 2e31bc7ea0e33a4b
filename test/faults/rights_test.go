// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

// Capabilities that an agent needs.
var (
	rightsToLoad   = []int{unix.CAP_BPF, unix.CAP_PERFMON}
	rightsToAttach = []int{unix.CAP_NET_ADMIN}
)

// notNeeded lists all other capabilities. The agents do not have them, as in a cluster.
var notNeeded = func() []int {
	var all []int
	for capability := range unix.CAP_LAST_CAP + 1 {
		if !slices.Contains(rightsToLoad, capability) && !slices.Contains(rightsToAttach, capability) {
			all = append(all, capability)
		}
	}
	return all
}()

// Out of memory is simulated by a filter of the agent's system calls. If the kernel really had no eight kilobytes for a map, it
// would kill the agent for a page of its heap, which is the fault "an agent is killed".
func rightsFaults() []fault {
	return []fault{
		{
			name:   "an agent starts without the right to load programs, and later with it",
			inject: func(s *faultContext) error { return s.without(rightsToLoad) },
		},
		{
			name: "the interface is made again while the agent has no right to load programs", loses: "what arrives at the new interface until an agent attaches",
			inject: func(s *faultContext) error { return s.newWithout(rightsToLoad) },
			heal:   lostSoFar,
		},
		{
			name: "the interface is made again while the agent has no right to attach", loses: "what arrives at the new interface until an agent attaches",
			inject: func(s *faultContext) error { return s.newWithout(rightsToAttach) },
			heal:   lostSoFar,
		},
		{
			name: "the interface is made again while the kernel has no memory for a map", loses: "what arrives at the new interface until an agent attaches",
			inject: func(s *faultContext) error { return s.newWithoutMemory(unix.BPF_MAP_CREATE) },
			heal:   lostSoFar,
		},
		{
			name: "the interface is made again while the kernel has no memory for a program", loses: "what arrives at the new interface until an agent attaches",
			inject: func(s *faultContext) error { return s.newWithoutMemory(unix.BPF_PROG_LOAD) },
			heal:   lostSoFar,
		},
		{
			name: "the interface is made again while the kernel has no memory for a link", loses: "what arrives at the new interface until an agent attaches",
			inject: func(s *faultContext) error { return s.newWithoutMemory(unix.BPF_LINK_CREATE) },
			heal:   lostSoFar,
		},
	}
}

// without runs an agent without the capabilities until it is healed.
func (s *faultContext) without(rights []int) error {
	return s.instead(netnscluster.Build{Without: rights})
}

// instead runs another agent until it is healed.
func (s *faultContext) instead(b netnscluster.Build) error {
	s.undo = append(s.undo, func() error { return s.replace(netnscluster.Build{}) })
	if err := s.stopAgent(s.node, syscall.SIGTERM); err != nil {
		return err
	}
	return s.startAgent(s.node, b)
}

// newWithout creates the interface again while the agent runs without the capabilities, which the node state must report.
func (s *faultContext) newWithout(rights []int) error {
	return s.newBefore(netnscluster.Build{Without: rights}, v1alpha1.ReasonPermissionDenied)
}

// newWithoutMemory creates the interface again while a command of bpf(2) fails for lack of memory, which the node state must
// report.
func (s *faultContext) newWithoutMemory(command int) error {
	return s.newBefore(netnscluster.Build{NoMemoryFor: []int{command}}, v1alpha1.ReasonOutOfMemory)
}

// newBefore creates the interface again, and then starts an agent that fails with the reason.
func (s *faultContext) newBefore(b netnscluster.Build, reason string) error {
	if err := s.instead(b); err != nil {
		return err
	}
	if err := deleteData(s); err != nil {
		return err
	}
	if err := makeAgain(s); err != nil {
		return err
	}
	return s.reports(reason)
}
