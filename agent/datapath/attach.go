// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/agent/xdp"
)

// Attach attaches the counting program to the interface a.Index in a.Mode. If the interface is counted already, Attach
// changes nothing, except that it replaces the program over the same map, without a gap, if it is of another version or if
// the interface's MTU has changed. It does not check the mode of the present attachment.
//
// Errors wrap those of package plan: ErrPending if there are counts of an earlier attachment to an interface of this index,
// which Detach removes; for the others see explainAttachError. Auto uses generic mode if xdp.AnotherVariantMayWork, and
// Attached then returns the error of native mode. After an error nothing is left that was not there before.
func (d *Datapath) Attach(a plan.Attachment) error {
	if err := d.whileMounted(func() error { return d.attach(a) }); err != nil {
		return fmt.Errorf("attach %s: %w", a.Name, err)
	}
	return nil
}

func (d *Datapath) attach(a plan.Attachment) error {
	f := d.folder(a.Index)
	if a.ViaDispatcher {
		return d.attachToDispatcher(f, a)
	}
	counts, _, err := d.counts(f)
	if errors.Is(err, os.ErrNotExist) {
		// An earlier attempt may have been killed before the map was pinned.
		if err := d.removeIncomplete(f); err != nil {
			return permission(err)
		}
		if err := d.adopt(a); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return d.attachNew(f, a)
	}
	if err != nil {
		return permission(err)
	}
	defer counts.Close()
	l, err := openLink(f.linkPin())
	if errors.Is(err, os.ErrNotExist) {
		return plan.ErrPending
	}
	if err != nil {
		return permission(err)
	}
	defer l.Close()
	state, err := stateOf(l)
	if err != nil {
		return err
	}
	if state.index != a.Index {
		return plan.ErrPending
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("list the interfaces: %w", err)
	}
	present, err := d.attachment(f, interfaces)
	if err != nil || !present.Outdated {
		return err
	}
	delete(d.mtus, present.Map) // stored again by the next look: if the update fails, it is not repeated for the same MTU
	return d.update(f, l, counts, d.modes[present.Map])
}

// attachNew creates the folder and the pins in it. The order makes the state after a crash unambiguous: a link is pinned
// only beside the program and the map that it uses.
func (d *Datapath) attachNew(f folder, a plan.Attachment) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, restoreFeatures(f.loadFeatures()), f.remove())
			d.removeEmpty()
		}
	}()
	if err := free(a.Index); err != nil {
		return err
	}
	counts, err := d.makeCounts(f)
	if err != nil {
		return err
	}
	defer counts.Close()
	before := readDeviceFacts(a.Index)
	features, err := d.beginFeatures(f, a.Index)
	if err != nil {
		return err
	}
	l, program, refused, err := attachLink(&d.extack, d.spec, counts, a)
	if err != nil {
		return err
	}
	defer l.Close()
	defer program.Close()
	defer func() {
		if err != nil {
			_ = l.Detach() // at once, so that features can be restored
		}
	}()
	if err := f.endFeatures(features); err != nil {
		return err
	}
	if refused != nil {
		if err := f.saveFallbackReason(refused, before); err != nil {
			return err
		}
	}
	if err := f.pinProgram(program); err != nil {
		return err
	}
	if err := l.Pin(f.linkPin()); err != nil {
		return permission(fmt.Errorf("pin the link: %w", err))
	}
	return nil
}

// update replaces the program, which runs in this mode, by ours, over the same map. No frame is missed: the kernel exchanges a
// pointer.
func (d *Datapath) update(f folder, l link.Link, counts *ebpf.Map, mode plan.Mode) error {
	program, err := choose(d.spec, counts, mode, func(program *ebpf.Program) error {
		if err := l.Update(program); err != nil {
			return xdp.WrapErrno(fmt.Errorf("update the program: %w", err))
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer program.Close()
	// After a crash before this pin the link's program is not the pinned one, which otherVersion detects.
	return f.pinProgram(program)
}

// attachLink attaches the program in the mode. Auto is the mode a.First, or native mode, if it is possible, and otherwise the
// other one. refused is the error of native mode if Auto attached in generic mode because of it.
func attachLink(listener *extackListener, spec *ebpf.CollectionSpec, counts *ebpf.Map, a plan.Attachment) (l link.Link, program *ebpf.Program, refused, err error) {
	switch a.Mode {
	case plan.Native, plan.Generic:
		l, program, err = attachIn(a.Mode, listener, spec, counts, a.Index)
		return l, program, nil, err
	case plan.Auto:
		if a.First == plan.Generic {
			if l, program, err := attachIn(plan.Generic, listener, spec, counts, a.Index); err == nil || !xdp.AnotherVariantMayWork(err) {
				return l, program, nil, err
			}
		}
		// Without a mode in the flags the kernel does not try generic mode after an error.
		l, program, native := attachIn(plan.Native, listener, spec, counts, a.Index)
		if errors.Is(native, plan.ErrOffloadConflict) && switchOff(a.Index, lostInGenericMode) { // as generic mode would do
			l, program, native = attachIn(plan.Native, listener, spec, counts, a.Index)
		}
		if native == nil || !xdp.AnotherVariantMayWork(native) {
			return l, program, nil, native
		}
		l, program, err := attachIn(plan.Generic, listener, spec, counts, a.Index)
		if err != nil {
			// Only the error of generic mode is wrapped; that of native mode is added as text.
			return nil, nil, nil, fmt.Errorf("generic: %w (native: %v)", err, native) //nolint:errorlint // on purpose: see above
		}
		return l, program, native, nil
	default:
		return nil, nil, nil, fmt.Errorf("unknown mode %q", a.Mode)
	}
}

// attachIn attaches in native or generic mode.
func attachIn(mode plan.Mode, listener *extackListener, spec *ebpf.CollectionSpec, counts *ebpf.Map, index int) (l link.Link, program *ebpf.Program, err error) {
	flags := link.XDPDriverMode
	if mode == plan.Generic {
		flags = link.XDPGenericMode
	}
	program, err = choose(spec, counts, mode, func(program *ebpf.Program) (err error) {
		l, err = attachXDP(listener, program, index, flags)
		return err
	})
	return l, program, err
}

func attachXDP(listener *extackListener, program *ebpf.Program, index int, mode link.XDPAttachFlags) (l link.Link, err error) {
	message, err := listener.run(func() (err error) {
		l, err = link.AttachXDP(link.XDPOptions{Program: program, Interface: index, Flags: mode})
		return err
	})
	if err == nil {
		return l, nil
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		err = errno // the text around it adds nothing
	}
	return nil, explainAttachError(err, message, index, mode == link.XDPDriverMode)
}

// free returns an error that wraps plan.ErrHookInUse if a program is on the hook, in any mode. The kernel returns an error
// too, but it does not name the program, and only after our program was loaded.
func free(index int) error {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return nil //nolint:nilerr // attaching returns the error
	}
	if hook := xdp.HookOf(l); hook.Mode != "" {
		return busy(hook, unix.EBUSY)
	}
	return nil
}

// Detach detaches the program whose pins are in the folder a.Pin, restores the interface's features, and removes the counts. It is
// no error if there is none. If features cannot be restored, the program is detached all the same, and it is not tried again.
func (d *Datapath) Detach(a plan.Attachment) error {
	f := folder{path: filepath.Clean(a.Pin)}
	if !slices.ContainsFunc(d.layouts, func(l *layout) bool { return filepath.Dir(f.path) == d.layoutPins(l) }) {
		return fmt.Errorf("detach %q: no such folder of pins", a.Pin)
	}
	if err := d.whileMounted(func() error { return d.detach(f) }); err != nil {
		return fmt.Errorf("detach %s: %w", a.Pin, permission(err))
	}
	d.removeEmpty()
	return nil
}

// detach detaches the program, restores the features that it has switched off, and removes the folder.
func (d *Datapath) detach(f folder) error {
	if err := detachLink(f.linkPin()); err != nil {
		return err
	}
	if err := d.leaveDispatcher(f); err != nil {
		return err
	}
	return errors.Join(restoreFeatures(f.loadFeatures()), f.remove()) // an error of the first must not keep the pins
}

// detachLink detaches the link that is pinned there, if it is one. Without that the kernel detaches it some time after the
// last pin is removed, and until then Attach would find the hook in use.
func detachLink(pin string) error {
	l, err := openLink(pin)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errForeign) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := errors.Join(l.Detach(), l.Close()); err != nil {
		return fmt.Errorf("detach %s: %w", pin, err)
	}
	return nil
}

// removeEmpty removes the folders of this network namespace, those of layouts, and the root, if they are empty.
func (d *Datapath) removeEmpty() {
	// Folders that are not empty are not removed, with an error that is ignored.
	for _, l := range d.layouts {
		_ = os.Remove(d.layoutPins(l))
		_ = os.Remove(d.versionPins(l.version))
	}
	_ = os.Remove(d.root())
}
