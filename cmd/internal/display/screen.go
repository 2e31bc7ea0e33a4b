// SPDX-License-Identifier: Apache-2.0

package display

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Size is the size of a terminal. Zero means no limit.
type Size struct {
	Columns int
	Lines   int
}

// Terminal returns the size of the terminal, and false if the file is not a terminal.
func Terminal(file *os.File) (Size, bool) {
	descriptor := int(file.Fd())
	columns, lines, err := term.GetSize(descriptor)
	switch {
	case err != nil:
		return Size{}, false
	case columns == 0 || lines == 0: // the terminal does not know its size
		return Size{Columns: 80, Lines: 24}, true
	default:
		return Size{Columns: columns, Lines: lines}, true
	}
}

// Screen prints tables. On a terminal each table replaces the previous one. Otherwise an empty line separates them.
type Screen struct {
	Out   io.Writer
	Size  func() (Size, bool) // false if Out is not a terminal
	drawn int                 // number of lines of the last table
	begun bool
}

// Print writes the lines that render returns for the size of the terminal, or for the zero value if there is none. On a
// terminal the lines must fit, because the next table is drawn over them.
func (s *Screen) Print(render func(Size) []string) error {
	bounds, terminal := s.Size()
	lines := render(bounds)
	text := strings.Join(lines, "\n") + "\n"
	switch {
	case terminal && s.drawn > 0:
		// Move the cursor up to the first line of the previous table, and clear the screen from there.
		text = fmt.Sprintf("\x1b[%dA\r\x1b[J", s.drawn) + text
	case !terminal && s.begun:
		text = "\n" + text
	}
	s.drawn, s.begun = len(lines), true
	if _, err := io.WriteString(s.Out, text); err != nil { // in one write, to avoid flickering
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// Clip cuts a line to the number of columns, because a wrapped line would break redrawing. Zero means no limit.
func Clip(line string, columns int) string {
	if runes := []rune(line); columns > 0 && len(runes) > columns {
		return string(runes[:columns])
	}
	return line
}

// Share returns the number of rows that each section can show, if sections are separated by an empty line and one line is
// left for the cursor. frame is the number of lines that a section has in addition to its rows. ok is false if there is not
// at least one row for each section.
func Share(sizes []int, frame int, bounds Size) (rows []int, ok bool) {
	if bounds.Lines == 0 {
		return sizes, true
	}
	left := bounds.Lines - 1 - frame*len(sizes) - (len(sizes) - 1)
	if left < len(sizes) {
		return nil, false
	}
	rows = make([]int, len(sizes))
	for given := true; given; { // one row per section in turn, while lines are left
		given = false
		for i, size := range sizes {
			if left > 0 && rows[i] < size {
				rows[i]++
				left--
				given = true
			}
		}
	}
	return rows, true
}
