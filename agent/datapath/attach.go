package datapath

import (
	"errors"
	"fmt"
	"io/fs"
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

// Attach makes the interface a.Index counted in a.Mode. What is there already is left alone; its program is replaced
// over the same map, without a gap, if it is another version than ours, or chosen anew if the interface's MTU has
// changed. The mode of what is there is not judged.
//
// Errors wrap those of package plan: ErrPending if counts of an earlier attachment to an interface of this index are
// still there, which Detach gives up; the others as the kernel's errno and words tell (see explainAttachError). Auto takes generic
// mode for those that lie with the driver, and Attached tells which it was. After an error nothing is left that was not
// there before.
func (d *Datapath) Attach(a plan.Attachment) error {
	if err := d.attach(a); err != nil {
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
		// An earlier attempt may have been killed before it had counts.
		if err := d.detach(f); err != nil {
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
	delete(d.mtus, present.Map) // to be noted anew: if nothing can be done about this one, once is enough to say so
	return d.update(f, l, counts)
}

// attachNew makes the folder and all in it, in such an order that what is left by a crash can be told: a link is
// pinned only beside the program and the map that it needs.
func (d *Datapath) attachNew(f folder, a plan.Attachment) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, f.remove())
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
	l, program, refused, err := attachLink(&d.extack, d.spec, counts, a)
	if err != nil {
		return err
	}
	defer l.Close()
	defer program.Close()
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

// update puts our program in the place of the one that runs, over the same counts. No frame goes uncounted: the
// kernel exchanges the pointer.
func (d *Datapath) update(f folder, l link.Link, counts *ebpf.Map) error {
	program, err := choose(d.spec, counts, func(program *ebpf.Program) error {
		if err := l.Update(program); err != nil {
			return xdp.WrapErrno(fmt.Errorf("update the program: %w", err))
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer program.Close()
	// A crash before the pin is replaced shows: the link's program is then not the pinned one.
	return f.pinProgram(program)
}

// attachLink attaches the program in the mode, for Auto natively if the driver can, else generically: refused then says
// why native mode was not to be had.
func attachLink(w *extackListener, spec *ebpf.CollectionSpec, counts *ebpf.Map, a plan.Attachment) (l link.Link, program *ebpf.Program, refused, err error) {
	switch a.Mode {
	case plan.Native:
		l, program, err = attachNative(w, spec, counts, a.Index)
		return l, program, nil, err
	case plan.Generic:
		l, program, err = attachGeneric(w, spec, counts, a.Index)
		return l, program, nil, err
	case plan.Auto:
		// Both modes are asked for by name: left to choose, the kernel does not try the other one after an error.
		l, program, native := attachNative(w, spec, counts, a.Index)
		if native == nil || !xdp.AnotherVariantMayWork(native) {
			return l, program, nil, native
		}
		l, program, err := attachGeneric(w, spec, counts, a.Index)
		if err != nil {
			// Why native was not to be had is told, but what counts is why generic was not.
			return nil, nil, nil, fmt.Errorf("generic: %w (native: %v)", err, native) //nolint:errorlint // on purpose: see above
		}
		return l, program, native, nil
	default:
		return nil, nil, nil, fmt.Errorf("unknown mode %q", a.Mode)
	}
}

func attachNative(w *extackListener, spec *ebpf.CollectionSpec, counts *ebpf.Map, index int) (l link.Link, program *ebpf.Program, err error) {
	program, err = choose(spec, counts, func(program *ebpf.Program) (err error) {
		l, err = attachXDP(w, program, index, link.XDPDriverMode)
		return err
	})
	return l, program, err
}

// attachGeneric needs no choice: here the kernel makes one buffer of every frame.
func attachGeneric(w *extackListener, spec *ebpf.CollectionSpec, counts *ebpf.Map, index int) (l link.Link, program *ebpf.Program, err error) {
	if program, err = oneBuffer.load(spec, counts); err != nil {
		return nil, nil, err
	}
	if l, err = attachXDP(w, program, index, link.XDPGenericMode); err != nil {
		program.Close()
		return nil, nil, err
	}
	return l, program, nil
}

func attachXDP(w *extackListener, program *ebpf.Program, index int, mode link.XDPAttachFlags) (l link.Link, err error) {
	said, err := w.run(func() (err error) {
		l, err = link.AttachXDP(link.XDPOptions{Program: program, Interface: index, Flags: mode})
		return err
	})
	if err == nil {
		return l, nil
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		err = errno // which says all that the rest says
	}
	return nil, explainAttachError(err, said, index, mode == link.XDPDriverMode)
}

// free returns an error that wraps plan.ErrHookInUse if a program holds the hook in whichever mode. The kernel would say
// so too, but not whose it is, and only to a program that was loaded for it.
func free(index int) error {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return nil //nolint:nilerr // to attach will tell
	}
	if hook := xdp.HookOf(l); hook.Mode != "" {
		return busy(hook, unix.EBUSY)
	}
	return nil
}

// Detach stops the counting of the attachment in the folder a.Pin and gives up its counts. It is no error if it is
// gone already.
func (d *Datapath) Detach(a plan.Attachment) error {
	f := folder{path: filepath.Clean(a.Pin)}
	if !slices.ContainsFunc(d.layouts, func(l *layout) bool { return filepath.Dir(f.path) == d.layoutPins(l) }) {
		return fmt.Errorf("detach %q: no such folder of pins", a.Pin)
	}
	if err := d.detach(f); err != nil {
		return fmt.Errorf("detach %s: %w", a.Pin, permission(err))
	}
	d.removeEmpty()
	return nil
}

// detach leaves nothing of the folder and its attachment.
func (d *Datapath) detach(f folder) error {
	if err := detachLink(f.linkPin()); err != nil {
		return err
	}
	if err := d.leaveDispatcher(f); err != nil {
		return err
	}
	return f.remove()
}

// detachLink detaches at once what is pinned there, if it is a link. By itself the kernel does so only some time
// after the last pin is gone: until then an Attach would find the hook in use.
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

// removeEmpty removes those folders above the attachments that have none left.
func (d *Datapath) removeEmpty() {
	// Not being empty is how they refuse.
	for _, l := range d.layouts {
		_ = os.Remove(d.layoutPins(l))
	}
	_ = os.Remove(d.root())
}

// Cleanup detaches and removes everything of the project in the bpffs, of any layout, whether this version knows it
// or not. It goes on after errors, and is no error if there is nothing. The error wraps plan.ErrUpperHasProgram where a
// dispatcher cannot be left, since an interface above has a program of somebody else.
func (d *Datapath) Cleanup() error {
	err := d.detachAll()
	if err != nil {
		err = d.detachAll() // what was in the way may have been ours: the program of an interface above a shared one
	}
	if err == nil { // else the counts tell which programs are still ours
		err = os.RemoveAll(d.root())
	}
	if err != nil {
		return permission(fmt.Errorf("clean up %s: %w", d.root(), err))
	}
	return nil
}

func (d *Datapath) detachAll() error {
	var errs []error
	walk := func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			errs = append(errs, err)
		case !entry.IsDir(): // a pin, whatever of
			errs = append(errs, detachLink(path), d.leaveDispatcher(folder{path: filepath.Dir(path)}))
		}
		return nil
	}
	err := filepath.WalkDir(d.root(), walk)
	return errors.Join(append(errs, err)...)
}
