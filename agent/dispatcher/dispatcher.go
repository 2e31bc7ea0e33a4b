// SPDX-License-Identifier: Apache-2.0

package dispatcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/agent/xdp"
	"github.com/xdp-operator/xdp-operator/bpf"
)

// Hook is the XDP hook of one interface.
type Hook struct {
	Bpffs   string   // the path of the BPF file system, which must be the same for all programs that share hooks
	Index   int      // the interface, in the network namespace of the calling thread
	Journal string   // a folder there for the pins of a change in progress, used by nothing else
	Maps    []uint32 // IDs of maps: programs that use one of them are ours
	Between func()   // called between the steps of a change, for tests that stop there; otherwise nil
}

func (h Hook) between() {
	if h.Between != nil {
		h.Between()
	}
}

// Program is a program that Join adds.
type Program struct {
	Name  string // of its function; the order of the programs depends on it
	Frags bool   // it accepts frames in several buffers
	Load  func(bpf.Place) (*ebpf.Program, error)
}

// Membership is our program in a dispatcher. It is zero if there is none.
type Membership struct {
	Dispatcher uint32 // the ID of the program that is attached to the interface
	Program    uint32 // the ID of ours
	Tag        string // the kernel's, of ours
}

// Membership returns which program of ours the dispatcher on the hook calls. It changes nothing, and needs only the permission
// to open pins.
func (h Hook) Membership() (Membership, error) {
	for {
		on, err := attached(h.Index)
		if errors.Is(err, plan.ErrInterfaceGone) || errors.Is(err, plan.ErrHookInUse) || err == nil && on.Program == 0 {
			return Membership{}, nil
		}
		if err != nil {
			return Membership{}, err
		}
		m, err := h.ours(on.Program)
		if err != nil || m.Program != 0 {
			return m, err
		}
		// The pins of a dispatcher exist before it is attached and while it is. If they are missing, the dispatcher has been
		// replaced since attached was called.
		if again, err := attached(h.Index); err == nil && again == on {
			return Membership{}, nil
		}
	}
}

// ours returns the first program of ours in a dispatcher.
func (h Hook) ours(id uint32) (Membership, error) {
	m, err := h.oursIn(h.folder(id))
	if err != nil || !m.ours {
		return Membership{}, err
	}
	return Membership{Dispatcher: id, Program: m.id, Tag: m.tag}, nil
}

// oursIn returns the first program of ours that is pinned in the folder of a dispatcher, without the program itself, which is
// closed. The zero value means that there is none.
func (h Hook) oursIn(folder string) (member, error) {
	for i := range Places {
		pin := filepath.Join(folder, place(i)+"-prog")
		p, err := ebpf.LoadPinnedProgram(pin, nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return member{}, permission(fmt.Errorf("open %s, a program of a dispatcher: %w", pin, err))
		}
		m := member{program: p}
		err = errors.Join(m.describe(h.isOurs), p.Close())
		m.program = nil
		if err != nil || m.ours {
			return m, err
		}
	}
	return member{}, nil
}

// Uses reports whether a program that uses the map is pinned in the folder of any dispatcher of the bpffs, for any interface of
// any network namespace. Whether the dispatcher is attached is known only in its network namespace.
func Uses(bpffs string, mapID uint32) (bool, error) {
	h := Hook{Bpffs: bpffs, Maps: []uint32{mapID}}
	entries, err := os.ReadDir(h.root())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, permission(fmt.Errorf("list the dispatchers: %w", err))
	}
	for _, e := range entries {
		if m, err := h.oursIn(filepath.Join(h.root(), e.Name())); err != nil || m.ours {
			return m.ours, err
		}
	}
	return false, nil
}

func (h Hook) isOurs(info *ebpf.ProgramInfo) bool {
	ids, _ := info.MapIDs()
	return slices.ContainsFunc(ids, func(id ebpf.MapID) bool { return slices.Contains(h.Maps, uint32(id)) })
}

// Join adds the program to those that are called on the hook, and replaces a program of ours if there is one. If a dispatcher
// is attached, its mode stays; if nothing is attached, Join attaches a dispatcher. The other programs continue, and none of
// them misses a frame.
//
// Errors wrap those of package plan: ErrHookInUse if the attached program is no dispatcher, or a dispatcher in another mode;
// ErrDispatcherRefused with the cause, and also ErrNotLoaded if that is the cause; ErrUpperHasProgram, ErrPermission,
// ErrInterfaceGone; and those of a driver that refuses native mode, for which Auto uses generic mode. After an error nothing
// has changed.
func (h Hook) Join(mode plan.Mode, p Program) error {
	if err := mayShare(); err != nil {
		return err
	}
	return h.change(func() error { return h.join(mode, p) })
}

// Leave removes every program of ours, also from dispatchers that a killed process left. If no other program is left, it
// detaches the dispatcher. The other programs continue. It is no error if there is no program of ours. The error wraps
// plan.ErrUpperHasProgram if an interface above has a program.
func (h Hook) Leave() error {
	if _, err := os.Stat(h.root()); errors.Is(err, os.ErrNotExist) {
		return nil // there is no dispatcher
	}
	return h.change(h.leave)
}

// CleanInterruptedChange removes the pins of a change that was killed. It is cheap if there are none.
func (h Hook) CleanInterruptedChange() error {
	for _, pin := range h.journal() {
		if _, err := os.Lstat(pin); err == nil {
			unlock, err := h.lock()
			if err != nil {
				return err
			}
			defer unlock()
			return h.cleanInterruptedChange()
		}
	}
	return nil
}

// ErrNotLoaded is wrapped together with plan.ErrDispatcherRefused if the kernel does not load the program. It may load another
// one.
var ErrNotLoaded = errors.New("the kernel does not load it")

// attempts is how often a change is tried while other processes change the hook.
const attempts = 10

func (h Hook) change(do func() error) error {
	unlock, err := h.lock()
	if err != nil {
		return err
	}
	defer unlock()
	for range attempts {
		if err = h.cleanInterruptedChange(); err == nil {
			err = do()
		}
		if !errors.Is(err, errChanged) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", plan.ErrHookInUse, err)
}

func (h Hook) join(mode plan.Mode, p Program) error {
	now, err := h.read()
	defer now.close()
	if err != nil {
		return err
	}
	if now.program != nil && mode != plan.Auto && mode != now.mode {
		return fmt.Errorf("%w: the dispatcher is attached in %s mode", plan.ErrHookInUse, now.mode)
	}
	added := member{name: p.Name, priority: priority, actions: actions, ours: true}
	if p.Frags {
		added.flags = flagFrags
	}
	next := with(without(now.members), added)
	if len(next) > Places {
		return fmt.Errorf("%w: the dispatcher calls %d programs, which is the maximum", plan.ErrDispatcherRefused, Places)
	}
	modes := []plan.Mode{now.mode}
	if now.program == nil {
		if modes = []plan.Mode{mode}; mode == plan.Auto {
			modes = []plan.Mode{plan.Native, plan.Generic}
		}
	}
	return h.replace(now, next, p, modes)
}

func (h Hook) leave() error {
	on, err := attached(h.Index)
	if err != nil && !errors.Is(err, plan.ErrInterfaceGone) && !errors.Is(err, plan.ErrHookInUse) {
		return err
	}
	if on.Program != 0 {
		m, err := h.ours(on.Program)
		if err != nil {
			return err
		}
		if m.Program != 0 {
			if err := h.leaveDispatcher(); err != nil {
				return err
			}
		}
	}
	return h.sweep()
}

func (h Hook) leaveDispatcher() error {
	if err := mayShare(); err != nil {
		return err
	}
	now, err := h.read()
	defer now.close()
	if err != nil {
		return err
	}
	next := without(now.members)
	if len(next) > 0 {
		return h.replace(now, next, Program{}, []plan.Mode{now.mode})
	}
	if err := exchange(h.Index, now.mode, now.program, nil); err != nil {
		return err
	}
	h.between()
	return h.unpin(now.id)
}

// sweep removes the pins of dispatchers that call a program of ours and are not attached. No other process is about to attach
// one of them: it was created from a dispatcher with our program, and can only replace that one.
func (h Hook) sweep() error {
	on, err := attached(h.Index)
	if err != nil && !errors.Is(err, plan.ErrInterfaceGone) && !errors.Is(err, plan.ErrHookInUse) {
		return err
	}
	ids, err := h.pinned()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if id == on.Program {
			continue
		}
		if m, err := h.ours(id); err != nil {
			return err
		} else if m.Program != 0 {
			if err := h.unpin(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// present is the dispatcher that is attached, the zero value if there is none.
type present struct {
	program *ebpf.Program
	id      uint32
	mode    plan.Mode
	members []member
}

func (p present) close() {
	if p.program != nil {
		_ = p.program.Close()
	}
	closeAll(p.members)
}

// read returns the dispatcher on the hook. The caller closes it, also after an error.
func (h Hook) read() (now present, err error) {
	on, err := attached(h.Index)
	if err != nil || on.Program == 0 {
		return now, err
	}
	now.id, now.mode = on.Program, on.Mode
	if now.program, err = ebpf.NewProgramFromID(ebpf.ProgramID(on.Program)); errors.Is(err, os.ErrNotExist) {
		return now, fmt.Errorf("%w: %w", errChanged, err)
	} else if err != nil {
		return now, permission(fmt.Errorf("open program %d: %w", on.Program, err))
	}
	c, err := configuration(now.program)
	if err != nil {
		return now, err
	}
	now.members, err = h.members(on.Program, c, h.isOurs)
	if err != nil {
		if again, e := attached(h.Index); e == nil && again != on {
			return now, fmt.Errorf("%w: %w", errChanged, err)
		}
		return now, fmt.Errorf("%w: not all of the dispatcher's programs are pinned below %s, so they would be lost: %w", plan.ErrDispatcherRefused, h.root(), err)
	}
	return now, nil
}

// configuration returns the config of a dispatcher. The error wraps plan.ErrHookInUse if the program is not a dispatcher.
func configuration(p *ebpf.Program) (config, error) {
	info, err := p.Info()
	if err != nil {
		return config{}, fmt.Errorf("read the information of the program on the hook: %w", err)
	}
	maps, _ := info.MapIDs()
	if info.Name != program || len(maps) != 1 {
		return config{}, fmt.Errorf("%w: %s is not a dispatcher, so the hook cannot be shared", plan.ErrHookInUse, info.Name)
	}
	constants, err := ebpf.NewMapFromID(maps[0])
	if err != nil {
		return config{}, permission(fmt.Errorf("open the dispatcher's configuration: %w", err))
	}
	defer constants.Close()
	if constants.KeySize() != 4 || constants.MaxEntries() != 1 || constants.Flags()&unix.BPF_F_RDONLY_PROG == 0 {
		return config{}, fmt.Errorf("%w: %s has no configuration of a dispatcher", plan.ErrHookInUse, info.Name)
	}
	text, err := constants.LookupBytes(uint32(0))
	if err != nil {
		return config{}, fmt.Errorf("read the dispatcher's configuration: %w", err)
	}
	c, err := parseConfig(text)
	if err != nil {
		return c, fmt.Errorf("%w: %w", plan.ErrDispatcherRefused, err)
	}
	return c, nil
}

// replace creates a dispatcher that calls these members, and replaces the present one, in the first of the modes that the
// driver accepts. The journal has both from before the first pin until the end.
func (h Hook) replace(now present, next []member, p Program, modes []plan.Mode) (err error) {
	made, err := build(next, p)
	defer made.close()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.cleanInterruptedChange()) }() // removes the pins of the one that is not attached
	if err := h.writeJournal(made.program, now.program); err != nil {
		return err
	}
	h.between()
	if err := h.pin(made.id, made.members, made.links); err != nil {
		return err
	}
	for _, mode := range modes {
		h.between()
		err = exchange(h.Index, mode, now.program, made.program)
		h.between()
		if err == nil || errors.Is(err, errChanged) || !xdp.AnotherVariantMayWork(err) {
			break
		}
	}
	return err
}

// made is a dispatcher that can be attached.
type made struct {
	program *ebpf.Program
	id      uint32
	members []member
	links   []link.Link
	loaded  *ebpf.Program // the new member
}

func (m made) close() {
	for _, l := range m.links {
		_ = l.Close()
	}
	if m.loaded != nil {
		_ = m.loaded.Close()
	}
	if m.program != nil {
		_ = m.program.Close()
	}
}

// build creates a dispatcher that calls the members, and loads the member that is not loaded yet. The attached dispatcher calls
// the other members too. The caller closes the result, also after an error.
func build(members []member, p Program) (m made, err error) {
	refused := func(what string, err error) error {
		return fmt.Errorf("%w: %s: %w", plan.ErrDispatcherRefused, what, err)
	}
	m.members = slices.Clone(members)
	c := configOf(members)
	if m.program, err = bpf.NewDispatcher(c.bytes(), c.Frags != 0); err != nil {
		return m, refused("load the dispatcher", fmt.Errorf("%w: %w", ErrNotLoaded, err))
	}
	if m.id, err = idOf(m.program); err != nil {
		return m, err
	}
	for i := range m.members {
		if m.members[i].program == nil {
			if m.loaded, err = p.Load(bpf.Place{Dispatcher: m.program, Function: place(i)}); err != nil {
				return m, refused("load the program (type EXT)", fmt.Errorf("%w: %w", ErrNotLoaded, err))
			}
			m.members[i].program = m.loaded
		}
		l, err := link.AttachFreplace(m.program, place(i), m.members[i].program)
		if err != nil {
			return m, refused("link "+m.members[i].name+" to the dispatcher", err)
		}
		m.links = append(m.links, l)
	}
	return m, nil
}

func idOf(p *ebpf.Program) (uint32, error) {
	info, err := p.Info()
	if err != nil {
		return 0, err
	}
	id, ok := info.ID()
	if !ok {
		return 0, errors.New("the kernel returns no ID")
	}
	return uint32(id), nil
}

// mayShare returns an error without CAP_SYS_ADMIN, which is needed to open the programs of other processes.
func mayShare() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return fmt.Errorf("%w: sharing the hook needs the capability SYS_ADMIN", plan.ErrPermission)
	}
	return nil
}
