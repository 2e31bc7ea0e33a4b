// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// reporter tells a person what takes so long. The zero value is silent.
type reporter struct {
	out     io.Writer
	pending bool // the cursor of the terminal is in a line of progress
}

// line prints one line for good.
func (r *reporter) line(format string, args ...any) {
	if r.out == nil {
		return
	}
	r.progressEnd()
	fmt.Fprintf(r.out, "controlplane: "+format+"\n", args...)
}

// interval returns how often progress should be called.
func (r *reporter) interval() time.Duration {
	if r.terminal() {
		return time.Second
	}
	return 10 * time.Second
}

// progress prints a status: on a terminal over the one before, elsewhere as a line of its own.
func (r *reporter) progress(status string) {
	switch {
	case r.out == nil:
	case r.terminal():
		fmt.Fprintf(r.out, "\r\x1b[Kcontrolplane: %s", status)
		r.pending = true
	default:
		r.line("%s", status)
	}
}

// progressEnd takes the last status away from a terminal.
func (r *reporter) progressEnd() {
	if r.pending {
		fmt.Fprint(r.out, "\r\x1b[K")
		r.pending = false
	}
}

func (r *reporter) terminal() bool {
	file, ok := r.out.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}
