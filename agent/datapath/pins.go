// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/bpf"
)

// errForeign is the error for a pin that this package did not create.
var errForeign = errors.New("not a pin of xdp-operator")

// folder has the pins of one attachment. It may not exist.
type folder struct {
	path   string
	layout *layout // of the counts
}

func (f folder) counts() string     { return filepath.Join(f.path, "counts") }
func (f folder) programPin() string { return filepath.Join(f.path, "program") }
func (f folder) linkPin() string    { return filepath.Join(f.path, "link") }

// errNewer is the error for a layout that this version does not know.
var errNewer = errors.New("the pins are of a newer version: run that version, or remove them and their counts with \"agent cleanup\"")

// folders returns the folders of all known layouts in this network namespace, whatever they contain. The error wraps errNewer if there are pins of
// another layout: otherwise their counts would be added twice as soon as they can be read.
func (d *Datapath) folders() ([]folder, error) {
	paths, err := folderPaths(d.root())
	if err != nil {
		return nil, err
	}
	var folders []folder
	for _, path := range paths {
		version, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(path), "v"))
		if err != nil || path != d.versionPins(version) {
			continue // not created by this project
		}
		of, err := d.foldersOf(version)
		if err != nil {
			return nil, err
		}
		folders = append(folders, of...)
	}
	return folders, nil
}

// foldersOf returns those of one layout.
func (d *Datapath) foldersOf(version int) ([]folder, error) {
	paths, err := folderPaths(filepath.Join(d.versionPins(version), d.netns))
	if err != nil {
		return nil, err
	}
	var folders []folder
	for _, path := range paths {
		index := indexOf(path)
		if index == 0 {
			continue // not an attachment
		}
		at := slices.IndexFunc(d.layouts, func(l *layout) bool { return l.version == version })
		if at < 0 {
			return nil, fmt.Errorf("layout %d: %w", version, errNewer)
		}
		folders = append(folders, d.folderOf(d.layouts[at], index))
	}
	return folders, nil
}

// counts opens the folder's map. The error wraps os.ErrNotExist if there is none, and errForeign if it is not a table
// of the folder's layout for this machine.
func (d *Datapath) counts(f folder) (counts *ebpf.Map, id uint32, err error) {
	counts, err = ebpf.LoadPinnedMap(f.counts(), nil)
	if err != nil {
		return nil, 0, pinError(f.counts(), err)
	}
	defer func() {
		if err != nil {
			counts.Close()
		}
	}()
	if counts.ValueSize() != uint32(d.cpus*f.layout.slots*16) || counts.Flags()&unix.BPF_F_MMAPABLE == 0 {
		return nil, 0, fmt.Errorf("%s: %w: a map of another shape", f.counts(), errForeign)
	}
	if id, err = mapID(counts); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", f.counts(), err)
	}
	return counts, id, nil
}

// program returns ID and tag of the pinned program.
func (f folder) program() (id uint32, tag string, err error) {
	program, err := ebpf.LoadPinnedProgram(f.programPin(), nil)
	if err != nil {
		return 0, "", pinError(f.programPin(), err)
	}
	defer program.Close()
	info, err := program.Info()
	if err != nil {
		return 0, "", fmt.Errorf("%s: %w", f.programPin(), err)
	}
	programID, _ := info.ID()
	return uint32(programID), info.Tag, nil
}

// makeCounts creates the folder, and a map of zeros that it pins there.
func (d *Datapath) makeCounts(f folder) (*ebpf.Map, error) {
	if err := os.MkdirAll(f.path, 0o700); err != nil {
		return nil, permission(fmt.Errorf("make the folder of the pins: %w", err))
	}
	counts, err := bpf.NewMap(d.spec)
	if err != nil {
		return nil, permission(fmt.Errorf("make the map: %w", err))
	}
	if err := counts.Pin(f.counts()); err != nil {
		return nil, errors.Join(permission(fmt.Errorf("pin the map: %w", err)), counts.Close())
	}
	return counts, nil
}

// pinProgram pins the program and replaces the pinned one. It renames the pin, so that there is one at any time. The temporary
// name has no dot, because bpffs does not allow dots.
func (f folder) pinProgram(program *ebpf.Program) error {
	temporary := f.programPin() + "_new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return permission(fmt.Errorf("pin the program: %w", err))
	}
	if err := program.Pin(temporary); err != nil {
		return permission(fmt.Errorf("pin the program: %w", err))
	}
	if err := os.Rename(temporary, f.programPin()); err != nil {
		return permission(fmt.Errorf("pin the program: %w", err))
	}
	return nil
}

// linkState is what a link is attached to. It is zero if there is no link, and after the link was detached or the interface was
// deleted: the link then still exists, but it is attached to nothing.
type linkState struct {
	index         int
	program       uint32
	viaDispatcher bool   // there is no link: program is a dispatcher that calls our program
	tag           string // of our program, if viaDispatcher
}

func (f folder) link() (linkState, error) {
	l, err := openLink(f.linkPin())
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errForeign) {
		return linkState{}, nil
	}
	if err != nil {
		return linkState{}, err
	}
	defer l.Close()
	return stateOf(l)
}

func openLink(pin string) (link.Link, error) {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return nil, pinError(pin, err)
	}
	return l, nil
}

func stateOf(l link.Link) (linkState, error) {
	info, err := l.Info()
	if err != nil {
		return linkState{}, fmt.Errorf("read the link's information: %w", err)
	}
	xdp := info.XDP()
	if xdp == nil || xdp.Ifindex == 0 {
		return linkState{}, nil
	}
	return linkState{index: int(xdp.Ifindex), program: uint32(info.Program)}, nil
}

// remove removes the folder and its pins. The counts are last, so that after a remove that was killed either they can still
// be read or nothing is left.
func (f folder) remove() error {
	var errs []error
	entries, err := os.ReadDir(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	errs = append(errs, err)
	for _, e := range entries {
		if path := filepath.Join(f.path, e.Name()); path != f.counts() {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the pins: %w", err)
	}
	if err := os.RemoveAll(f.path); err != nil {
		return fmt.Errorf("remove the pins: %w", err)
	}
	return nil
}

// pinError returns errForeign for a pin of another kind, which can be opened but has the wrong type, and for a folder, for which
// the kernel returns EACCES. Other errors are the kernel's.
func pinError(path string, err error) error {
	_, errno := errors.AsType[syscall.Errno](err)
	if info, statErr := os.Lstat(path); !errno || statErr == nil && info.IsDir() {
		return fmt.Errorf("%s: %w: %w", path, errForeign, err)
	}
	return fmt.Errorf("open %s: %w", path, err)
}
