// SPDX-License-Identifier: Apache-2.0

// Package exit maps the errors of a program to exit statuses, and formats them in one line with a hint.
package exit

import (
	"errors"
	"strings"

	"github.com/xdp-operator/xdp-operator/internal/format"
)

// Cause is an error that other errors can wrap.
type Cause struct {
	Err    error
	Status int    // the exit status
	Hint   string // advice for the user; can be empty
}

// Causes lists the errors that a program distinguishes. If an error wraps several, the first in the list applies.
type Causes []Cause

// Status returns the exit status: 0 if err is nil, and 1 if it wraps none of the causes.
func (c Causes) Status(err error) int {
	if err == nil {
		return 0
	}
	if cause := c.of(err); cause != nil {
		return cause.Status
	}
	return 1
}

// Line returns the error in one line for a terminal, followed by the hint.
func (c Causes) Line(err error) string {
	text := format.Printable(strings.ReplaceAll(err.Error(), "\n", "; "))
	if cause := c.of(err); cause != nil && cause.Hint != "" {
		text += " (" + cause.Hint + ")"
	}
	return text
}

// of returns the cause of the error, or nil.
func (c Causes) of(err error) *Cause {
	for i := range c {
		if errors.Is(err, c[i].Err) {
			return &c[i]
		}
	}
	return nil
}
