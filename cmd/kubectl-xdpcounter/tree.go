// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/xdp-operator/xdp-operator/internal/format"
)

// branch is a tree of texts. Characters in them that are not printable are escaped when it is drawn.
type branch struct {
	text     string
	details  []string // printed between text and branches. Those that begin with command are not wrapped
	branches []branch
}

// command is the prefix of a shell command.
const command = "$ "

// lines draws the tree. Lines longer than columns are wrapped between words, unless columns is 0.
func (b branch) lines(columns int) []string {
	return b.draw("", "", columns)
}

// draw returns the lines. The prefix of the first line is first, and the prefix of the others is rest.
func (b branch) draw(first, rest string, columns int) []string {
	trunk := rest
	if len(b.branches) > 0 {
		trunk += "│  "
	} else {
		trunk += "   "
	}
	lines := wrap(b.text, first, trunk, columns)
	for _, d := range b.details {
		if strings.HasPrefix(d, command) {
			lines = append(lines, trunk+format.Printable(d))
			continue
		}
		lines = append(lines, wrap(d, trunk, trunk, columns)...)
	}
	for i, child := range b.branches {
		if i < len(b.branches)-1 {
			lines = append(lines, child.draw(rest+"├─ ", rest+"│  ", columns)...)
		} else {
			lines = append(lines, child.draw(rest+"└─ ", rest+"   ", columns)...)
		}
	}
	return lines
}

// wrap breaks a text between words. A word that is longer than a line is not broken.
func wrap(text, first, rest string, columns int) []string {
	var lines []string
	line, begun := first, false
	for word := range strings.SplitSeq(format.Printable(text), " ") {
		if begun && columns > 0 && width(line)+1+width(word) > columns {
			lines = append(lines, strings.TrimRight(line, " "))
			line, begun = rest, false
		}
		if begun {
			line += " "
		}
		line, begun = line+word, true
	}
	return append(lines, strings.TrimRight(line, " "))
}
