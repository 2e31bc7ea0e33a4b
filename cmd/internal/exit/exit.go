// Package exit tells the one who runs a program what went wrong: by the exit status, and in one line with a hint.
package exit

import (
	"errors"
	"strings"
)

// Cause is what an error may wrap.
type Cause struct {
	Err    error
	Status int    // the exit status
	Hint   string // for the one who reads the error; "": there is none to give
}

// Causes are what a program tells apart. Of those that an error wraps the first holds.
type Causes []Cause

// Status returns the exit status: 0 without an error, 1 for one that has none of its own.
func (c Causes) Status(err error) int {
	if err == nil {
		return 0
	}
	if cause := c.of(err); cause != nil {
		return cause.Status
	}
	return 1
}

// Line returns the error in one line, with the hint.
func (c Causes) Line(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if cause := c.of(err); cause != nil && cause.Hint != "" {
		text += " (" + cause.Hint + ")"
	}
	return text
}

// of returns nil if there is none.
func (c Causes) of(err error) *Cause {
	for i := range c {
		if errors.Is(err, c[i].Err) {
			return &c[i]
		}
	}
	return nil
}
