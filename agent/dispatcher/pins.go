// SPDX-License-Identifier: Apache-2.0

package dispatcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
)

// root is the folder that all users of the protocol share.
func (h Hook) root() string { return filepath.Join(h.Bpffs, "xdp") }

// folder is the folder of the pins of a dispatcher's programs.
func (h Hook) folder(id uint32) string {
	return filepath.Join(h.root(), h.prefix()+strconv.FormatUint(uint64(id), 10))
}

func (h Hook) prefix() string { return "dispatch-" + strconv.Itoa(h.Index) + "-" }

func place(n int) string { return "prog" + strconv.Itoa(n) }

// lockTimeout is how long to wait for another process that has the lock, usually for milliseconds.
const lockTimeout = 5 * time.Second

// lock takes the lock of the protocol: until unlock no other process changes pins.
func (h Hook) lock() (unlock func(), err error) {
	if err := os.Mkdir(h.root(), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, permission(fmt.Errorf("create the folder of the dispatchers: %w", err))
	}
	fd, err := unix.Open(h.root(), unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, permission(&os.PathError{Op: "open", Path: h.root(), Err: err})
	}
	const wait = 5 * time.Millisecond
	for waited := time.Duration(0); ; waited += wait {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = unix.Close(fd) }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || waited >= lockTimeout {
			_ = unix.Close(fd)
			return nil, &os.PathError{Op: "lock", Path: h.root(), Err: err}
		}
		time.Sleep(wait)
	}
}

// members returns the pinned programs of a dispatcher, and marks ours. The caller closes them, also after an error.
func (h Hook) members(id uint32, c config, ours func(*ebpf.ProgramInfo) bool) (members []member, err error) {
	for i := range int(c.Enabled) {
		p, err := ebpf.LoadPinnedProgram(filepath.Join(h.folder(id), place(i)+"-prog"), nil)
		if err != nil {
			return members, err
		}
		m := member{actions: c.Actions[i] &^ goOn, priority: c.Priorities[i], flags: c.Flags[i], program: p}
		members = append(members, m)
		if err := members[i].describe(ours); err != nil {
			return members, err
		}
	}
	return members, nil
}

func (m *member) describe(ours func(*ebpf.ProgramInfo) bool) error {
	info, err := m.program.Info()
	if err != nil {
		return err
	}
	id, _ := info.ID()
	loaded, _ := info.LoadTime()
	m.name, m.id, m.tag, m.loaded, m.ours = info.Name, uint32(id), info.Tag, loaded, ours(info)
	return nil
}

func closeAll(members []member) {
	for _, m := range members {
		if m.program != nil {
			_ = m.program.Close()
		}
	}
}

// pin pins the members of a dispatcher before it is attached.
func (h Hook) pin(id uint32, members []member, links []link.Link) error {
	if err := os.Mkdir(h.folder(id), 0o700); err != nil {
		return permission(fmt.Errorf("pin the dispatcher: %w", err))
	}
	for i, m := range members {
		h.between()
		if err := links[i].Pin(filepath.Join(h.folder(id), place(i)+"-link")); err != nil {
			return permission(fmt.Errorf("pin %s: %w", m.name, err))
		}
		// A clone, because a Program stores only one pin, and this one may be pinned elsewhere.
		p, err := m.program.Clone()
		if err != nil {
			return fmt.Errorf("pin %s: %w", m.name, err)
		}
		err = p.Pin(filepath.Join(h.folder(id), place(i)+"-prog"))
		if err := errors.Join(err, p.Close()); err != nil {
			return permission(fmt.Errorf("pin %s: %w", m.name, err))
		}
	}
	return nil
}

// unpin removes the pins of a dispatcher that is not attached.
func (h Hook) unpin(id uint32) error {
	if err := os.RemoveAll(h.folder(id)); err != nil {
		return permission(fmt.Errorf("unpin the dispatcher: %w", err))
	}
	return nil
}

// pinned returns the IDs of all dispatchers of the interface that have pins, attached or not.
func (h Hook) pinned() (ids []uint32, err error) {
	entries, err := os.ReadDir(h.root())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, permission(err)
	}
	for _, e := range entries {
		if number, ok := strings.CutPrefix(e.Name(), h.prefix()); ok && e.IsDir() {
			if id, err := strconv.ParseUint(number, 10, 32); err == nil {
				ids = append(ids, uint32(id))
			}
		}
	}
	return ids, nil
}

// permission wraps errors that are caused by missing capabilities in plan.ErrPermission.
func permission(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: %w", plan.ErrPermission, err)
	}
	return err
}
