// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

func hookFaults() []fault {
	return []fault{
		{
			name: "the link is detached by hand", loses: lostFromNow,
			inject: func(s *faultContext) error {
				s.losesFromNow()
				return detachLink(s.node)
			},
		},
		{
			name: "the link is detached by hand while no agent runs", loses: "what arrives until an agent attaches again",
			inject: func(s *faultContext) error {
				if err := s.stop(syscall.SIGKILL); err != nil {
					return err
				}
				return s.sender.held(func() error { return s.nothingFrom(detachLink(s.node)) })
			},
			heal: lostSoFar,
		},
		{
			name: "another program takes the hook in the gap, and leaves again", loses: lostFromNow,
			inject: func(s *faultContext) error {
				var foreign link.Link
				err := s.sender.held(func() (err error) {
					if err := s.node.Agent.Pause(); err != nil { // or it would be faster
						return err
					}
					if err := s.nothingFrom(detachLink(s.node)); err != nil {
						return err
					}
					foreign, err = attachForeign(s.node)
					return errors.Join(err, s.node.Agent.Resume())
				})
				if err != nil {
					return err
				}
				s.undo = append(s.undo, func() error {
					if err := lostSoFar(s); err != nil {
						return err
					}
					return errors.Join(foreign.Detach(), foreign.Close())
				})
				return s.reports(v1alpha1.ReasonXDPHookInUse)
			},
		},
	}
}

// nothingFrom is losesFromNow for one who holds the traffic.
func (s *faultContext) nothingFrom(err error) error {
	arrived := s.sender.arrived
	s.since = &arrived
	return err
}

// passing loads another XDP program, which passes all packets.
func passing() (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreign", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.LoadImm(asm.R0, 2 /* XDP_PASS */, asm.DWord), asm.Return()},
	})
}

func attachForeign(n *netnscluster.Node) (held link.Link, err error) {
	program, err := passing()
	if err != nil {
		return nil, err
	}
	defer func() { _ = program.Close() }()
	err = n.Do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		held, err = link.AttachXDP(link.XDPOptions{Program: program, Interface: eth0.Attrs().Index, Flags: link.XDPDriverMode})
		return err
	})
	return held, err
}
