// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/agent/xdp"
	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// layout is the format of the map of an attachment. For each possible CPU the map has a number of slots: pairs of packets and
// bytes.
type layout struct {
	version int // LAYOUT of counter.h, and in the path of the pins
	slots   int
	slot    [traffic.NumClasses]int // of each class
}

// layout1 has the classes in their order, and one unused slot at the end.
func layout1() *layout {
	l := &layout{version: 1, slots: 516}
	for class := range l.slot {
		l.slot[class] = class
	}
	return l
}

// current is the layout of the programs that Attach loads. Earlier layouts are only read; adopt replaces them.
func (d *Datapath) current() *layout { return d.layouts[len(d.layouts)-1] }

// adopt changes an attachment of an earlier layout to the current one. Its link gets our program with a new map, without a gap.
// The old folder keeps the old counts, which do not change any more: it then belongs to an attachment that is gone.
//
// The error wraps os.ErrNotExist if no earlier layout has an attachment to the interface.
func (d *Datapath) adopt(a plan.Attachment) error {
	for _, earlier := range d.layouts[:len(d.layouts)-1] {
		old := d.folderOf(earlier, a.Index)
		l, err := openLink(old.linkPin())
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, errForeign) {
			continue
		}
		if err != nil {
			return permission(err)
		}
		state, err := stateOf(l)
		if err == nil && state.index == a.Index {
			err = d.move(l, state, old, d.folder(a.Index))
			return errors.Join(err, l.Close())
		}
		if err := errors.Join(err, l.Close()); err != nil {
			return err
		}
	}
	return os.ErrNotExist
}

// move gives the link a program with a new map. The program is pinned before it runs, so that finishMoves can detect a move
// that a crash has interrupted.
func (d *Datapath) move(l link.Link, state linkState, old, to folder) (err error) {
	mode, err := modeOf(state.index, state.program)
	if err != nil {
		return err
	}
	counts, err := d.makeCounts(to)
	if err != nil {
		return err
	}
	defer counts.Close()
	program, err := choose(d.spec, counts, mode, func(program *ebpf.Program) error {
		if err := to.pinProgram(program); err != nil {
			return err
		}
		if err := l.Update(program); err != nil {
			return xdp.WrapErrno(fmt.Errorf("update the program: %w", err))
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, to.remove())
	}
	defer program.Close()
	return finishMove(old, to)
}

// finishMove moves the pins of the fallbackReason and of the features, if there are any, and of the link to the folder of the
// program that runs.
func finishMove(old, to folder) error {
	if err := os.Rename(old.fallbackReasonPin(), to.fallbackReasonPin()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return permission(fmt.Errorf("move the reason for generic mode: %w", err))
	}
	if err := os.Rename(old.featuresPin(), to.featuresPin()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return permission(fmt.Errorf("move the switched off features: %w", err))
	}
	if err := os.Rename(old.linkPin(), to.linkPin()); err != nil {
		return permission(fmt.Errorf("pin the link: %w", err))
	}
	return nil
}

// finishMoves completes moves between layouts that were killed: the link runs the program that is pinned in the new folder,
// but the link's pin is still in the old folder.
func (d *Datapath) finishMoves() error {
	for _, earlier := range d.layouts[:len(d.layouts)-1] {
		folders, err := d.foldersOf(earlier.version)
		if err != nil {
			return err
		}
		for _, old := range folders {
			l, err := old.link()
			if err != nil || l.index == 0 {
				continue // attachment returns the error
			}
			to := d.folder(l.index)
			if id, _, err := to.program(); err != nil || id != l.program {
				continue
			}
			if err := finishMove(old, to); err != nil {
				return err
			}
		}
	}
	return nil
}
