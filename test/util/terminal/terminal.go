// SPDX-License-Identifier: Apache-2.0

// Package terminal makes terminals for programs that are tested or shown.
package terminal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Open is New for tests: both ends are closed at the end of the test.
func Open(t *testing.T, columns, lines uint16) (screen, terminal *os.File) {
	t.Helper()
	screen, terminal, err := New(columns, lines)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close(); terminal.Close() })
	return screen, terminal
}

// New returns the two ends of a terminal of that size: what a program writes to terminal is read from screen, which
// ends with an error when nobody has terminal open.
func New(columns, lines uint16) (screen, terminal *os.File, err error) {
	screen, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make a terminal: %w", err), screen.Close())
		}
	}()
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: lines}); err != nil {
		return nil, nil, err
	}
	terminal, err = os.OpenFile(filepath.Join("/dev/pts", strconv.Itoa(n)), os.O_RDWR|unix.O_NOCTTY, 0)
	return screen, terminal, err
}
