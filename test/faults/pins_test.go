// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

const (
	lostFromNow      = "what arrives until it is attached again"
	lostSinceReport  = "what arrived since the last report, and what arrives until it is attached again"
	lostWithoutAgent = "what arrived since the last report, and what arrives until an agent attaches again"
)

func pinFaults() []fault {
	return []fault{
		{
			name: "the pin of the program is removed",
			inject: func(s *faultContext) error {
				folder, err := pins(s.node)
				if err != nil {
					return err
				}
				if err := removePin(s.node, "program"); err != nil {
					return err
				}
				return s.eventually(func() error {
					_, err := os.Stat(filepath.Join(folder, "program"))
					return err
				})
			},
		},
		{
			name: "the pin of the link is removed", loses: lostFromNow,
			inject: func(s *faultContext) error { return s.remove("link") },
		},
		{
			name: "the pin of the counts is removed", loses: lostSinceReport,
			inject: func(s *faultContext) error {
				if err := s.losesSinceReport(); err != nil {
					return err
				}
				return s.remove("counts")
			},
		},
		{
			name: "the folder of the pins is removed", loses: lostSinceReport,
			inject: func(s *faultContext) error {
				if err := s.losesSinceReport(); err != nil {
					return err
				}
				return s.remove("")
			},
		},
		{
			name: "the folder of the pins is removed while no agent runs", loses: lostWithoutAgent,
			inject: func(s *faultContext) error {
				if err := s.stop(syscall.SIGKILL); err != nil {
					return err
				}
				if err := s.losesSinceReport(); err != nil { // no later report will include them
					return err
				}
				return s.remove("")
			},
			heal: lostSoFar,
		},
		{
			// Counts of the meantime are lost. Earlier counts must not be counted again.
			name: "the folder of the pins is moved away, and back", loses: lostSinceReport,
			inject: func(s *faultContext) error {
				if err := s.losesSinceReport(); err != nil {
					return err
				}
				folder, err := pins(s.node)
				if err != nil {
					return err
				}
				aside := filepath.Join(s.node.BPFFS, "aside")
				if err := os.Rename(folder, aside); err != nil {
					return err
				}
				s.undo = append(s.undo, func() error {
					// An agent that attaches at this moment would use the folder.
					if err := s.stop(syscall.SIGTERM); err != nil {
						return err
					}
					if err := errors.Join(os.MkdirAll(filepath.Dir(folder), 0o700), os.RemoveAll(folder)); err != nil {
						return err
					}
					return os.Rename(aside, folder)
				})
				return s.reports("")
			},
		},
		{
			name: "a foreign map is in the place of the counts until someone removes the folder", loses: lostSinceReport,
			inject: func(s *faultContext) error {
				if err := s.losesSinceReport(); err != nil {
					return err
				}
				folder, err := pins(s.node)
				if err != nil {
					return err
				}
				s.undo = append(s.undo, func() error { return clearFolder(s, folder) })
				if err := os.Remove(filepath.Join(folder, "counts")); err != nil {
					return err
				}
				if err := pinForeignMap(filepath.Join(folder, "counts")); err != nil {
					return err
				}
				return s.reports("")
			},
		},
		{
			name: "a folder is in the place of the link until someone removes it", loses: lostFromNow,
			inject: func(s *faultContext) error {
				folder, err := pins(s.node)
				if err != nil {
					return err
				}
				s.undo = append(s.undo, func() error { return os.RemoveAll(filepath.Join(folder, "link")) })
				if err := s.remove("link"); err != nil {
					return err
				}
				if err := os.Mkdir(filepath.Join(folder, "link"), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
					if errors.Is(err, os.ErrNotExist) {
						return nil // the agent was faster and has removed the folder
					}
					return err
				}
				return s.stillReports()
			},
		},
		{
			name: "a program is pinned in the place of the link", loses: lostFromNow,
			inject: func(s *faultContext) error {
				folder, err := pins(s.node)
				if err != nil {
					return err
				}
				if err := s.node.Agent.Pause(); err != nil { // otherwise it would be faster
					return err
				}
				if err := s.remove("link"); err != nil {
					return errors.Join(err, s.node.Agent.Resume())
				}
				return errors.Join(pinForeignProgram(filepath.Join(folder, "link")), s.node.Agent.Resume())
			},
		},
		{
			name: "another file system hides the pins, and goes again",
			inject: func(s *faultContext) error {
				if err := unix.Mount("tmpfs", s.node.BPFFS, "tmpfs", 0, ""); err != nil {
					return err
				}
				s.undo = append(s.undo, func() error { return unix.Unmount(s.node.BPFFS, 0) })
				return s.reports(v1alpha1.ReasonBPFFSNotMounted)
			},
		},
		{
			name: "another file system hides the pins while an agent starts, and goes again",
			inject: func(s *faultContext) error {
				if err := s.stopAgent(s.node, syscall.SIGKILL); err != nil {
					return err
				}
				if err := unix.Mount("tmpfs", s.node.BPFFS, "tmpfs", 0, ""); err != nil {
					return err
				}
				s.undo = append(s.undo, func() error { return unix.Unmount(s.node.BPFFS, 0) })
				return errors.Join(s.startAgent(s.node, netnscluster.Build{}), s.reports(v1alpha1.ReasonBPFFSNotMounted))
			},
		},
		{
			name: "garbage lies between the pins",
			inject: func(s *faultContext) error {
				folder, err := pins(s.node)
				if err != nil {
					return err
				}
				namespace := filepath.Dir(folder)
				layout := filepath.Dir(namespace)
				garbage := []string{
					filepath.Join(namespace, "garbage"), filepath.Join(namespace, "0"), filepath.Join(namespace, "-1"),
					filepath.Join(namespace, "99999999999999999999"), filepath.Join(namespace, "4242"),
					filepath.Join(namespace, "4243"), filepath.Join(layout, "n0"), filepath.Join(layout, "garbage"),
					filepath.Join(filepath.Dir(layout), "v0"), filepath.Join(folder, "garbage"),
				}
				for _, path := range garbage {
					s.undo = append(s.undo, func() error { return os.RemoveAll(path) })
					if err := os.Mkdir(path, 0o700); err != nil {
						return err
					}
				}
				foreign := filepath.Join(namespace, "4244") // no interface has this index
				s.undo = append(s.undo, func() error { return os.RemoveAll(foreign) })
				return errors.Join(pinForeignMap(foreign), s.stillReports())
			},
		},
	}
}

// remove removes a pin of the node's eth0, or all pins if the name is empty, and waits until the program is detached. Without
// the link this happens at once, and without the counts in the next pass.
func (s *faultContext) remove(pin string) error {
	s.losesFromNow()
	program, _, err := hook(s.node)
	if err != nil {
		return err
	}
	folder, err := pins(s.node)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(folder, pin)); err != nil {
		return err
	}
	return s.changed(program)
}

// lostSoFar records that everything since the start of the loss is lost, because no agent runs and nothing is attached.
func lostSoFar(s *faultContext) error {
	now := s.sender.total()
	s.hasLost(now.Since(*s.since))
	s.since = &now
	return nil
}

// stillReports waits until the agent has reported once more.
func (s *faultContext) stillReports() error {
	var first *v1alpha1.XDPNodeState
	return s.soon(func() error {
		state, err := s.state(s.ctx, s.node)
		if err != nil {
			return err
		}
		if first == nil {
			first = state
		}
		if state.ResourceVersion == first.ResourceVersion {
			return fmt.Errorf("the agent of %s has stopped reporting", s.node.Name)
		}
		return nil
	})
}

// clearFolder removes a folder of pins, as the message in the node state advises.
func clearFolder(s *faultContext, folder string) error {
	program, _, err := hook(s.node)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	return s.changed(program)
}

func pinForeignMap(path string) error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "foreign", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return err
	}
	return errors.Join(m.Pin(path), m.Close())
}

func pinForeignProgram(path string) error {
	program, err := passing()
	if err != nil {
		return err
	}
	return errors.Join(program.Pin(path), program.Close())
}
