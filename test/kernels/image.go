// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// archive writes a cpio archive of the kind that the kernel unpacks as its first root file system
// (Documentation/driver-api/early-userspace/buffer-format.rst). It is not compressed: to decompress it in an emulator
// takes longer than to read it.
type archive struct {
	out   *bufio.Writer
	files int
	made  map[string]bool // folders
	err   error           // the first
}

func newArchive(out io.Writer) *archive {
	return &archive{out: bufio.NewWriterSize(out, 1<<20), made: map[string]bool{}}
}

// entry writes a header and the name; the contents follow. The format is "newc": hexadecimal, padded to 4 bytes.
func (a *archive) entry(name string, mode uint32, size int64) {
	if a.err != nil {
		return
	}
	a.files++
	_, a.err = fmt.Fprintf(a.out, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.files, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad(110 + len(name) + 1)
}

func (a *archive) pad(n int) {
	if a.err == nil {
		_, a.err = a.out.Write(make([]byte, (4-n%4)%4))
	}
}

// folder makes the folder and those above it.
func (a *archive) folder(name string) {
	name = strings.TrimPrefix(name, "/")
	if name == "" || name == "." || a.made[name] {
		return
	}
	a.folder(path.Dir(name))
	a.made[name] = true
	a.entry(name, 0o040755, 0)
}

// bytes makes a file with these contents.
func (a *archive) bytes(name string, contents []byte, mode uint32) {
	a.folder(path.Dir(name))
	a.entry(strings.TrimPrefix(name, "/"), 0o100000|mode, int64(len(contents)))
	if a.err == nil {
		_, a.err = a.out.Write(contents)
	}
	a.pad(len(contents))
}

// file copies a file.
func (a *archive) file(name, from string, mode uint32) {
	contents, err := os.ReadFile(from)
	if err != nil && a.err == nil {
		a.err = err
	}
	a.bytes(name, contents, mode)
}

// tree copies a folder, if there is one.
func (a *archive) tree(name, from string) {
	err := filepath.WalkDir(from, func(at string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative, err := filepath.Rel(from, at)
		if err != nil {
			return err
		}
		a.file(path.Join(name, filepath.ToSlash(relative)), at, 0o644)
		return nil
	})
	if err != nil && !os.IsNotExist(err) && a.err == nil {
		a.err = err
	}
}

// close ends the archive.
func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, 0)
	if a.err != nil {
		return a.err
	}
	return a.out.Flush()
}
