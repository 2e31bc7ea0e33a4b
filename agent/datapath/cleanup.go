// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Cleanup detaches and removes everything of the project in the bpffs, of any layout, also of unknown ones, and restores features
// of interfaces as Detach does. It continues after errors. It is no error if there is nothing. The error wraps
// plan.ErrUpperHasProgram if our program cannot be removed from a dispatcher because an interface above has another program.
//
// It leaves what belongs to another network namespace in which a program of ours is attached, and returns these folders.
func (d *Datapath) Cleanup() (others []string, err error) {
	if err := d.mounted(); err != nil {
		return nil, err
	}
	others, err = d.othersFolders()
	if err == nil {
		err = d.detachAll(others)
		if err != nil {
			err = d.detachAll(others) // the program in the way may have been ours, on an interface above the dispatcher
		}
	}
	if err == nil { // after an error the maps are needed to find our programs in dispatchers
		err = errors.Join(d.restoreAll(), d.removeAll(others))
	}
	if err != nil {
		return others, permission(fmt.Errorf("clean up %s: %w", d.root(), err))
	}
	return others, nil
}

func (d *Datapath) detachAll(except []string) error {
	return d.walk(except, func(path string, entry fs.DirEntry) error {
		if entry.IsDir() || entry.Type() == fs.ModeSymlink { // to follow a link with a long text is an error
			return nil
		}
		// a pin of any kind
		return errors.Join(detachLink(path), d.leaveDispatcher(folder{path: filepath.Dir(path)}))
	})
}

// removeAll removes the root with all pins and folders, except some folders and those above them. The names of pins are such that
// the counts of a folder are removed last.
func (d *Datapath) removeAll(except []string) error {
	var paths []string
	err := d.walk(except, func(path string, _ fs.DirEntry) error {
		paths = append(paths, path)
		return nil
	})
	errs := []error{err}
	for _, path := range slices.Backward(paths) {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// walk calls do for the root and everything below, in lexical order, except for some folders. It continues after errors.
func (d *Datapath) walk(except []string, do func(path string, entry fs.DirEntry) error) error {
	var errs []error
	err := filepath.WalkDir(d.root(), func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			errs = append(errs, err)
		case slices.Contains(except, path):
			return fs.SkipDir
		default:
			errs = append(errs, do(path, entry))
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}
