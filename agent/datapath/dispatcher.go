// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"

	"github.com/xdp-operator/xdp-operator/agent/dispatcher"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/bpf"
)

// hook returns the hook of the folder's interface. The programs that use one of the maps are ours.
func (d *Datapath) hook(f folder, maps ...uint32) dispatcher.Hook {
	return dispatcher.Hook{Bpffs: d.bpffs, Index: indexOf(f.path), Journal: f.path, Maps: maps}
}

// state returns what counts into the folder's map: the link, or without a link a program that a dispatcher calls.
func (d *Datapath) state(f folder, counts uint32) (linkState, error) {
	if _, err := os.Lstat(f.linkPin()); !errors.Is(err, os.ErrNotExist) {
		return f.link()
	}
	h := d.hook(f, counts)
	m, err := h.Membership()
	if err != nil || m.Program == 0 {
		return linkState{}, err
	}
	return linkState{index: h.Index, program: m.Dispatcher, viaDispatcher: true, tag: m.Tag}, nil
}

// otherMember reports whether the dispatcher calls a version of our program that Attach does not load, or one with an earlier
// layout. Attach loads the variants for native mode in any mode: a dispatcher's mode can be another program's choice.
func (d *Datapath) otherMember(f folder, a plan.Attachment) (bool, error) {
	m, err := d.hook(f, a.Map).Membership()
	if err != nil || m.Program == 0 {
		return f.layout != d.current(), err
	}
	current, err := d.tags.has(plan.Native, m.Tag)
	if err != nil {
		return false, nil //nolint:nilerr // a program that cannot be loaded cannot replace it
	}
	return !current || f.layout != d.current(), nil
}

// attachToDispatcher makes a dispatcher call a program that counts the interface.
func (d *Datapath) attachToDispatcher(f folder, a plan.Attachment) (err error) {
	counts, id, err := d.counts(f)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := d.removeIncomplete(f); err != nil { // an earlier attempt may have been killed before the map was pinned
			return permission(err)
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, restoreFeatures(f.loadFeatures()), f.remove())
				d.removeEmpty()
			}
		}()
		if counts, err = d.makeCounts(f); err != nil {
			return err
		}
		defer counts.Close()
		if id, err = mapID(counts); err != nil {
			return err
		}
		features, err := d.beginFeatures(f, a.Index)
		if err != nil {
			return err
		}
		if err := d.joinDispatcher(f, a, counts, id); err != nil {
			return err
		}
		if err := f.endFeatures(features); err != nil {
			return errors.Join(err, d.leaveDispatcher(f))
		}
		return nil
	case err != nil:
		return permission(err)
	default:
		defer counts.Close()
		present, err := d.attachment(f, nil)
		if err != nil {
			return err
		}
		if !present.ViaDispatcher {
			return plan.ErrPending
		}
		if !present.Outdated {
			return nil
		}
	}
	return d.joinDispatcher(f, a, counts, id)
}

// joinDispatcher adds our program to those that the dispatcher calls. It replaces one of ours, also one of another layout.
func (d *Datapath) joinDispatcher(f folder, a plan.Attachment, counts *ebpf.Map, id uint32) error {
	ours := []uint32{id}
	for _, l := range d.layouts {
		if earlier, err := pinnedMapID(d.folderOf(l, a.Index).counts()); err == nil {
			ours = append(ours, earlier)
		}
	}
	h := d.hook(f, ours...)
	join := func(name string, frags bool, load func(*ebpf.CollectionSpec, *ebpf.Map, bpf.Place) (*ebpf.Program, error)) error {
		return h.Join(a.Mode, dispatcher.Program{Name: name, Frags: frags, Load: func(place bpf.Place) (*ebpf.Program, error) {
			return load(d.spec, counts, place)
		}})
	}
	// Other programs may need frames in several buffers, and a dispatcher accepts these only if all its programs do.
	err := join(bpf.FragsProgram, true, bpf.NewFragsExtension)
	if errors.Is(err, dispatcher.ErrNotLoaded) { // before Linux 5.18
		err = join(bpf.Program, false, bpf.NewExtension)
	}
	if errors.Is(err, plan.ErrUpperHasProgram) {
		err = nameUpper(err, a.Index)
	}
	return err
}

// leaveDispatcher removes the program that uses the folder's map from the dispatcher.
func (d *Datapath) leaveDispatcher(f folder) error {
	id, err := pinnedMapID(f.counts())
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errForeign) {
		return d.cleanInterruptedChange(f)
	}
	if err != nil {
		return err
	}
	if err := d.hook(f, id).Leave(); err != nil {
		return fmt.Errorf("leave the dispatcher: %w", err)
	}
	return nil
}

// cleanInterruptedChange removes what a change of the dispatcher left that was killed.
func (d *Datapath) cleanInterruptedChange(f folder) error {
	return d.hook(f).CleanInterruptedChange()
}

// pinnedMapID returns the ID of a pinned map.
func pinnedMapID(pin string) (uint32, error) {
	m, err := ebpf.LoadPinnedMap(pin, nil)
	if err != nil {
		return 0, pinError(pin, err)
	}
	defer m.Close()
	return mapID(m)
}

func mapID(m *ebpf.Map) (uint32, error) {
	info, err := m.Info()
	if err != nil {
		return 0, fmt.Errorf("read the map's information: %w", err)
	}
	id, ok := info.ID()
	if !ok {
		return 0, errors.New("the kernel gives the map no ID")
	}
	return uint32(id), nil
}
