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
	Bpffs   string   // the path of the BPF file system, the same for all that share hooks
	Index   int      // the interface, in the network namespace of the calling thread
	Journal string   // a folder there for what a change that is killed would leave; nobody else has it
	Maps    []uint32 // IDs of maps: programs that use one of them are ours
	Between func()   // called between the steps of a change, for a test that ends there; nil otherwise
}

func (h Hook) between() {
	if h.Between != nil {
		h.Between()
	}
}

// Program is what shall take part.
type Program struct {
	Name  string // its function's, by which others sort it
	Frags bool   // it can take frames of many buffers
	Load  func(bpf.Place) (*ebpf.Program, error)
}

// Membership is what takes part of ours. It is zero where nothing does.
type Membership struct {
	Dispatcher uint32 // the ID of the program that is attached to the interface
	Program    uint32 // the ID of ours
	Tag        string // the kernel's, of ours
}

// Membership finds out whether the dispatcher on the hook calls a program of ours. It changes nothing, and asks for no
// more rights than to open pins.
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
		// A dispatcher is pinned before it is attached, and as long as it is. So it may be another one by now.
		if again, err := attached(h.Index); err == nil && again == on {
			return Membership{}, nil
		}
	}
}

// ours returns which of a dispatcher's programs is ours.
func (h Hook) ours(id uint32) (Membership, error) {
	for i := range Places {
		p, err := ebpf.LoadPinnedProgram(filepath.Join(h.folder(id), place(i)+"-prog"), nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return Membership{}, permission(fmt.Errorf("open a program of dispatcher %d: %w", id, err))
		}
		m := member{program: p}
		err = errors.Join(m.describe(h.isOurs), p.Close())
		if err != nil || m.ours {
			return Membership{Dispatcher: id, Program: m.id, Tag: m.tag}, err
		}
	}
	return Membership{}, nil
}

func (h Hook) isOurs(info *ebpf.ProgramInfo) bool {
	ids, _ := info.MapIDs()
	return slices.ContainsFunc(ids, func(id ebpf.MapID) bool { return slices.Contains(h.Maps, uint32(id)) })
}

// Join makes the program one of those that are called on the hook, in the place of one of ours if there is one: by the
// dispatcher that is there, then in its mode, or by the first one if nothing is there. All others go on, and no frame
// passes any of them by.
//
// Errors wrap those of package plan: ErrHookInUse if what is there is no dispatcher, or one in another mode;
// ErrDispatcherRefused, with the reason, and ErrNotLoaded too if it is that; ErrUpperHasProgram, ErrPermission,
// ErrInterfaceGone; and those of a driver that refuses native mode, for which Auto takes generic mode. Nothing was changed
// then.
func (h Hook) Join(mode plan.Mode, p Program) error {
	if err := mayShare(); err != nil {
		return err
	}
	return h.change(func() error { return h.join(mode, p) })
}

// Leave takes every program of ours out, also out of what a killed process has left, and with the last program the
// dispatcher too. It is no error if there is none. Others go on. The error wraps plan.ErrUpperHasProgram as long as an
// interface above has a program.
func (h Hook) Leave() error {
	if _, err := os.Stat(h.root()); errors.Is(err, os.ErrNotExist) {
		return nil // nobody shares anything
	}
	return h.change(h.leave)
}

// CleanInterruptedChange removes what a change has left that was killed. It is cheap if there is nothing.
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

// ErrNotLoaded is, beside plan.ErrDispatcherRefused, a program that the kernel does not load. It may load another one.
var ErrNotLoaded = errors.New("the kernel refuses it")

// attempts are how often a change is tried when others change the hook at the same time.
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
		return fmt.Errorf("%w: the dispatcher calls %d programs, which is the most it can", plan.ErrDispatcherRefused, Places)
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

// sweep removes the pins of dispatchers that call a program of ours and are not attached. Nobody is about to attach one
// of them: who made it made it from a dispatcher with our program, and expects that one on the hook.
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

// present is the dispatcher that is attached. Without one it is zero.
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

// read returns what is on the hook. The caller closes it, also with an error.
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
		return now, fmt.Errorf("%w: the dispatcher's programs are not all pinned below %s, as libxdp does it, and would be lost: %w", plan.ErrDispatcherRefused, h.root(), err)
	}
	return now, nil
}

// configuration returns a dispatcher's. The error wraps plan.ErrHookInUse if the program is none.
func configuration(p *ebpf.Program) (config, error) {
	info, err := p.Info()
	if err != nil {
		return config{}, fmt.Errorf("look at the program on the hook: %w", err)
	}
	maps, _ := info.MapIDs()
	if info.Name != program || len(maps) != 1 {
		return config{}, fmt.Errorf("%w: %s is no dispatcher, so that it cannot be shared", plan.ErrHookInUse, info.Name)
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

// replace puts a new dispatcher, which calls these members, in the place of the present one, in the first of the modes
// that is to be had. It is seen in the journal from before anything is pinned until all is done.
func (h Hook) replace(now present, next []member, p Program, modes []plan.Mode) (err error) {
	made, err := build(next, p)
	defer made.close()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.cleanInterruptedChange()) }() // which removes the pins of whichever is not attached
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

// made is a dispatcher that is ready to be attached.
type made struct {
	program *ebpf.Program
	id      uint32
	members []member
	links   []link.Link
	loaded  *ebpf.Program // the member that is new
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

// build makes a dispatcher that calls the members, of which it loads the one that is not yet. The others it calls beside
// the dispatcher that is attached. The caller closes it, also with an error.
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
				return m, refused("load the program that it shall call (type EXT)", fmt.Errorf("%w: %w", ErrNotLoaded, err))
			}
			m.members[i].program = m.loaded
		}
		l, err := link.AttachFreplace(m.program, place(i), m.members[i].program)
		if err != nil {
			return m, refused("let it call "+m.members[i].name, err)
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
		return 0, errors.New("the kernel gives no ID")
	}
	return uint32(id), nil
}

// journal are the pins that name the dispatchers of a change under way: the new one and the one that it replaces.
func (h Hook) journal() [2]string {
	return [2]string{filepath.Join(h.Journal, "dispatcher"), filepath.Join(h.Journal, "replaced")}
}

// writeJournal pins both. from may be nil.
func (h Hook) writeJournal(to, from *ebpf.Program) error {
	for i, p := range []*ebpf.Program{to, from} {
		if p == nil {
			continue
		}
		noted, err := p.Clone()
		if err != nil {
			return err
		}
		h.between()
		err = noted.Pin(h.journal()[i])
		if err := errors.Join(err, noted.Close()); err != nil {
			return permission(fmt.Errorf("note what is changed: %w", err))
		}
	}
	return nil
}

// cleanInterruptedChange removes the pins of those dispatchers of the journal that are not attached, and then the journal. The caller
// holds the lock.
func (h Hook) cleanInterruptedChange() error {
	for _, pin := range h.journal() {
		p, err := ebpf.LoadPinnedProgram(pin, nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return permission(fmt.Errorf("open %s: %w", pin, err))
		}
		id, err := idOf(p)
		if err := errors.Join(err, p.Close()); err != nil {
			return err
		}
		on, err := attached(h.Index)
		if err != nil && !errors.Is(err, plan.ErrInterfaceGone) && !errors.Is(err, plan.ErrHookInUse) {
			return err
		}
		if id != on.Program {
			if err := h.unpin(id); err != nil {
				return err
			}
		}
		h.between()
		if err := os.Remove(pin); err != nil {
			return permission(fmt.Errorf("remove %s: %w", pin, err))
		}
	}
	return nil
}

// mayShare returns an error without CAP_SYS_ADMIN, which it takes to open others' programs.
func mayShare() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 {
		return fmt.Errorf("%w: to share the hook takes the capability SYS_ADMIN", plan.ErrPermission)
	}
	return nil
}
