// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/dispatcher"
	"github.com/xdp-operator/xdp-operator/agent/xdp"
)

// namespaceName returns the name of the calling thread's network namespace in the paths of pins: "n" and its cookie, which the
// kernel does not use for another namespace until the next boot (SO_NETNS_COOKIE of socket(7), Linux 5.14). Before Linux 5.14
// it is "i" and the inode number of the namespace, which can be used again when the namespace is gone.
func namespaceName() (string, error) {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("identify the network namespace: %w", err)
	}
	defer unix.Close(socket)
	cookie, err := unix.GetsockoptUint64(socket, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if errors.Is(err, unix.ENOPROTOOPT) {
		return namespaceInode()
	}
	if err != nil {
		return "", fmt.Errorf("identify the network namespace: %w", err)
	}
	return "n" + strconv.FormatUint(cookie, 10), nil
}

// namespaceInode returns the name of the calling thread's network namespace on kernels without cookies.
func namespaceInode() (string, error) {
	const file = "/proc/thread-self/ns/net"
	var namespace unix.Stat_t
	if err := unix.Stat(file, &namespace); err != nil {
		return "", fmt.Errorf("identify the network namespace: %w", &os.PathError{Op: "stat", Path: file, Err: err})
	}
	return "i" + strconv.FormatUint(namespace.Ino, 10), nil
}

// place is where the program of a folder is attached.
type place int

const (
	nowhere   place = iota // it is not attached, or there is none
	here                   // to an interface of this network namespace
	elsewhere              // to an interface of another one
)

// placeOf returns where the program of a folder is attached, also of a folder that is not below that of this network namespace.
// A program has one link, so it is attached here if it is on the hook of the interface that the link names. A shared hook has
// no link, and a dispatcher of another network namespace cannot be found on its hook. So a program that is pinned as one that a
// dispatcher calls counts as attached.
func (d *Datapath) placeOf(f folder) (place, error) {
	l, err := f.link()
	if err != nil {
		return nowhere, err
	}
	if l.index != 0 {
		if i, err := netlink.LinkByIndex(l.index); err == nil && xdp.HookOf(i).Program == l.program {
			return here, nil
		}
		return elsewhere, nil
	}
	counts, err := pinnedMapID(f.counts())
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errForeign) {
		return nowhere, nil
	}
	if err != nil {
		return nowhere, err
	}
	if m, err := d.hook(f, counts).Membership(); err != nil || m.Program != 0 {
		return here, err
	}
	if used, err := dispatcher.Uses(d.bpffs, counts); err != nil || used {
		return elsewhere, err
	}
	return nowhere, nil
}

// adoptFolders moves the folders that versions before 0.1.0 have made, v<layout>/<ifindex>, into the folder of this network
// namespace, unless the program is attached in another one.
func (d *Datapath) adoptFolders() error {
	for _, l := range d.layouts {
		paths, err := folderPaths(d.versionPins(l.version))
		if err != nil {
			return err
		}
		for _, path := range paths {
			if indexOf(path) == 0 {
				continue
			}
			if err := d.adoptFolder(folder{path: path, layout: l}); err != nil {
				return fmt.Errorf("adopt %s: %w", path, err)
			}
		}
	}
	return nil
}

func (d *Datapath) adoptFolder(old folder) error {
	counts, _, err := d.counts(old)
	if errors.Is(err, errForeign) {
		return nil
	}
	if err == nil {
		err = counts.Close()
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if place, err := d.placeOf(old); err != nil || place == elsewhere {
		return err
	}
	to := d.folderOf(old.layout, indexOf(old.path))
	if err := os.MkdirAll(filepath.Dir(to.path), 0o700); err != nil {
		return permission(err)
	}
	err = os.Rename(old.path, to.path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrExist) {
		return nil // the agent of another network namespace was faster, or there are counts of this index that are not saved yet
	}
	return permission(err)
}

// othersFolders returns the folders that Cleanup has to leave: those of network namespaces in which a program is attached, in all
// layouts, and those of versions before 0.1.0 whose program is attached in another network namespace.
func (d *Datapath) othersFolders() (others []string, err error) {
	versions, err := folderPaths(d.root())
	if err != nil {
		return nil, err
	}
	var paths []string
	used := map[string]bool{} // by the name of the folder
	for _, version := range versions {
		folders, err := folderPaths(version)
		if err != nil {
			return nil, err
		}
		for _, path := range folders {
			if filepath.Base(path) == d.netns {
				continue
			}
			elsewhere, err := d.attachedElsewhere(path)
			if err != nil {
				return nil, err
			}
			paths = append(paths, path)
			used[filepath.Base(path)] = elsewhere || used[filepath.Base(path)]
		}
	}
	for _, path := range paths {
		if used[filepath.Base(path)] {
			others = append(others, path)
		}
	}
	return others, nil
}

// attachedElsewhere reports whether the program of a folder of versions before 0.1.0, or one of the programs in the folder of a
// network namespace, is attached in another network namespace than this one.
func (d *Datapath) attachedElsewhere(path string) (bool, error) {
	folders := []string{path}
	if indexOf(path) == 0 {
		var err error
		if folders, err = folderPaths(path); err != nil {
			return false, err
		}
	}
	for _, f := range folders {
		if place, err := d.placeOf(folder{path: f}); err != nil || place == elsewhere {
			return place == elsewhere, err
		}
	}
	return false, nil
}

// folderPaths returns the paths of the folders in a folder, none if it does not exist.
func folderPaths(path string) (paths []string, err error) {
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list the pins: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			paths = append(paths, filepath.Join(path, e.Name()))
		}
	}
	return paths, nil
}

// indexOf returns the index of the interface to which a folder belongs, 0 if its name is not one.
func indexOf(path string) int {
	index, err := strconv.Atoi(filepath.Base(path))
	if err != nil || index < 0 {
		return 0
	}
	return index
}
