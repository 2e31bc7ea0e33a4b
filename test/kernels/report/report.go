// SPDX-License-Identifier: Apache-2.0

// Package report is what a guest says over its second serial port, line by line: the output of the tests as it comes,
// and between it lines of its own, which begin with Mark.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Guest is an environment variable that is set for tests in a guest.
const Guest = "XDP_OPERATOR_GUEST"

// Mark begins a line of the guest's own. No test prints it.
const Mark = "#guest "

// Line is such a line. One of its fields is set.
type Line struct {
	Release string  `json:"release,omitempty"` // of the kernel, at the start
	Begin   string  `json:"begin,omitempty"`   // the Name of a Test, whose output follows
	End     End     `json:"end,omitzero"`      // the last tests are over
	Left    Left    `json:"left,omitzero"`     // some tests are not run
	Finding Finding `json:"finding,omitzero"`
	Error   string  `json:"error,omitempty"` // something went wrong in the guest itself
	Done    bool    `json:"done,omitempty"`  // nothing follows
}

// End is how the tests of a package ended.
type End struct {
	Status  int     `json:"status"` // of the process; 0 is success
	Seconds float64 `json:"seconds"`
}

// Left are the tests of a package that cannot be run on this kernel.
type Left struct {
	Name string `json:"name"` // of the Test
	Why  string `json:"why"`
}

// Finding is what was found out about the kernel.
type Finding struct {
	Feature string `json:"feature"`
	Is      bool   `json:"is"`
	Why     string `json:"why,omitempty"` // not: what the kernel said
}

// Write writes the line.
func Write(w io.Writer, l Line) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	// Begun with a line break, since the output of a test may have ended without one.
	_, err = fmt.Fprintf(w, "\n%s%s\n", Mark, text)
	return err
}

// Parse distinguishes a line of the guest from the output of a test.
func Parse(text string) (l Line, ok bool, err error) {
	text, ok = strings.CutPrefix(strings.TrimRight(text, "\r\n"), Mark)
	if !ok {
		return Line{}, false, nil
	}
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		return Line{}, true, fmt.Errorf("%q from the guest: %w", text, err)
	}
	return l, true, nil
}

// Test describes how to run the tests of one package. The guest reads it from the file Plan in its root.
type Test struct {
	Package string   // its directory in the repository, which is the tests' working directory
	Args    []string // beside those that every package gets
	Env     []string

	Command string // a program that is run with Args instead of the tests

	Lockdown       string // the level to which the kernel is locked down before; it cannot be taken back
	NeedsFragments bool   // not to be run on a kernel without xdp.frags
}

// Name is the package, and at which level of lockdown it is run.
func (t Test) Name() string {
	if t.Lockdown != "" {
		return t.Package + ", lockdown=" + t.Lockdown
	}
	return t.Package
}

// Plan is the guest's file with all Tests, as JSON.
const Plan = "/plan.json"

// Binary returns the path of the package's test program in the guest, and Folder that of its working directory.
func (t Test) Binary() string { return t.Folder() + "/tests" }

// Folder is described at Binary.
func (t Test) Folder() string { return "/src/" + t.Package }
