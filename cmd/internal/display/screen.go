package display

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Size is what a terminal shows. The zero value is without bounds.
type Size struct {
	Columns int
	Lines   int
}

// Terminal returns the size of the terminal, and false if the file is none.
func Terminal(file *os.File) (Size, bool) {
	descriptor := int(file.Fd())
	columns, lines, err := term.GetSize(descriptor)
	switch {
	case err != nil:
		return Size{}, false
	case columns == 0 || lines == 0: // one that does not know
		return Size{Columns: 80, Lines: 24}, true
	default:
		return Size{Columns: columns, Lines: lines}, true
	}
}

// Screen prints tables: on a terminal each in the place of the one before, else one after the other with an empty line
// between.
type Screen struct {
	Out   io.Writer
	Size  func() (Size, bool) // false if Out is no terminal
	drawn int                 // lines that stand on the terminal
	begun bool
}

// Print writes the lines that render makes for the size of the terminal; without one it gets the zero value. On a
// terminal they have to fit, or the next ones come out wrong.
func (s *Screen) Print(render func(Size) []string) error {
	bounds, terminal := s.Size()
	lines := render(bounds)
	text := strings.Join(lines, "\n") + "\n"
	switch {
	case terminal && s.drawn > 0:
		// Up to where it began, and away with what is from there on.
		text = fmt.Sprintf("\x1b[%dA\r\x1b[J", s.drawn) + text
	case !terminal && s.begun:
		text = "\n" + text
	}
	s.drawn, s.begun = len(lines), true
	if _, err := io.WriteString(s.Out, text); err != nil { // in one piece, so that nothing flickers
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// Clip cuts a line that would be wrapped, which would spoil the redrawing. Without columns there is no bound.
func Clip(line string, columns int) string {
	if runes := []rune(line); columns > 0 && len(runes) > columns {
		return string(runes[:columns])
	}
	return line
}

// Share returns how many of its rows each section gets where all of them stand below each other with an empty line between
// and one left for the cursor. frame is the number of lines that a section has besides. ok is false if there is not a row
// for each.
func Share(sizes []int, frame int, bounds Size) (rows []int, ok bool) {
	if bounds.Lines == 0 {
		return sizes, true
	}
	left := bounds.Lines - 1 - frame*len(sizes) - (len(sizes) - 1)
	if left < len(sizes) {
		return nil, false
	}
	rows = make([]int, len(sizes))
	for given := true; given; { // one each in turn, as long as somebody wants one and there are any
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
