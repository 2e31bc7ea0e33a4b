package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// size is what a terminal shows. The zero value is without bounds.
type size struct {
	columns int
	lines   int
}

// screen prints reports as tables: on a terminal each in the place of the one before, else one after the other.
type screen struct {
	out   io.Writer
	size  func() (size, bool) // false if out is no terminal
	drawn int                 // lines that stand on the terminal
	begun bool
}

func (s *screen) print(r report) error {
	bounds, terminal := s.size()
	if r.summary {
		bounds.lines = 0 // it is not redrawn, and may scroll
	}
	lines := render(r, bounds)
	text := strings.Join(lines, "\n") + "\n"
	switch {
	case terminal && s.drawn > 0:
		// Up to where it began, and away with what is from there on.
		text = fmt.Sprintf("\x1b[%dA\r\x1b[J", s.drawn) + text
	case !terminal && s.begun:
		text = "\n" + text
	}
	s.drawn, s.begun = len(lines), true
	if _, err := io.WriteString(s.out, text); err != nil { // in one piece, so that nothing flickers
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// render returns the lines of a report. Where there are more than the bounds allow, the smaller classes of each
// interface share one line; where even that is too much there is one line per interface.
func render(r report, bounds size) []string {
	var lines []string
	room := bounds.lines - 1 // the cursor has a line of its own
	if len(r.sections) == 0 {
		lines = []string{when(r), "no interface is counted"}
	} else if rows, ok := share(r.sections, room, bounds.lines > 0); ok {
		for i, s := range r.sections {
			if i > 0 {
				lines = append(lines, "")
			}
			lines = append(lines, detailed(r, s, rows[i])...)
		}
	} else {
		lines = brief(r, room)
	}
	if room > 0 && len(lines) > room {
		lines = lines[:room]
	}
	if bounds.columns > 0 {
		for i := range lines {
			lines[i] = clip(lines[i], bounds.columns)
		}
	}
	return lines
}

// share returns how many lines of classes each section gets. ok is false if there is not one for each.
func share(sections []section, room int, bounded bool) (rows []int, ok bool) {
	const frame = 3 // a section's title, heads and last line
	rows = make([]int, len(sections))
	if !bounded {
		for i, s := range sections {
			rows[i] = len(s.classes)
		}
		return rows, true
	}
	left := room - frame*len(sections) - (len(sections) - 1)
	if left < len(sections) {
		return nil, false
	}
	for given := true; given; { // one each in turn, as long as somebody wants one and there are any
		given = false
		for i, s := range sections {
			if left > 0 && rows[i] < len(s.classes) {
				rows[i]++
				left--
				given = true
			}
		}
	}
	return rows, true
}

// The columns, 69 characters wide: names of protocols and of interfaces have 15 at most.
const (
	headFormat = "%-16s%-9s%10s%9s%9s%10s%6s"
	shareEmpty = "-"
)

func detailed(r report, s section, rows int) []string {
	lines := []string{
		fmt.Sprintf("%s  %s  %s", s.name, state(s), when(r)),
		fmt.Sprintf(headFormat, "PROTOCOL", "FAMILY", "PACKETS/S", "BITS/S", "PACKETS", "BYTES", "SHARE"),
	}
	shown := s.classes
	var rest []class
	if len(shown) > rows {
		shown, rest = s.classes[:rows-1], s.classes[rows-1:]
	}
	for _, c := range shown {
		family := shareEmpty
		if _, ok := c.class.Number(); ok {
			family = c.class.Family().String()
		}
		lines = append(lines, row(c.class.Protocol(), family, c.rate, c.counts, s.all))
	}
	if rest != nil {
		var counts traffic.Counts
		var sum rate
		for _, c := range rest {
			counts, sum = counts.Plus(c.counts), sum.plus(c.rate)
		}
		name := fmt.Sprintf("%d others", len(rest))
		if len(shown) == 0 {
			name = fmt.Sprintf("%d protocols", len(rest))
		}
		lines = append(lines, row(name, "", sum, counts, s.all))
	}
	return append(lines, row("all", "", s.allRate, s.all, s.all))
}

// brief has one line per interface, and if there are more than fit a last one that tells how many.
func brief(r report, room int) []string {
	lines := []string{
		when(r),
		fmt.Sprintf(headFormat, "INTERFACE", "MODE", "PACKETS/S", "BITS/S", "PACKETS", "BYTES", "SHARE"),
	}
	var all traffic.Counts
	for _, s := range r.sections {
		all = all.Plus(s.all)
	}
	for i, s := range r.sections {
		left := len(r.sections) - i
		if left > 1 && len(lines) >= room-1 {
			lines = append(lines, fmt.Sprintf("and %d more interfaces", left))
			break
		}
		lines = append(lines, row(s.name, state(s), s.allRate, s.all, all))
	}
	return lines
}

func row(name, kind string, r rate, counts, of traffic.Counts) string {
	return fmt.Sprintf(headFormat, name, kind,
		scaled(r.packets, 1000, decimals), scaled(r.bits, 1000, decimals),
		whole(counts.Packets, 1000, decimals), whole(counts.Bytes, 1024, binaries),
		percent(counts.Packets, of.Packets))
}

// state is the mode in which an interface is counted.
func state(s section) string {
	if s.gone {
		return "gone"
	}
	return string(s.mode)
}

// when tells the time that a report is of.
func when(r report) string {
	if r.summary {
		return fmt.Sprintf("%s  rates are means over %s", r.time.Format(time.DateTime), seconds(r.elapsed))
	}
	return fmt.Sprintf("%s  the last %s", r.time.Format(time.DateTime), seconds(r.elapsed))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

var (
	decimals = []string{"", "k", "M", "G", "T", "P", "E"}
	binaries = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
)

// whole writes a number exactly below the base, and from there on as scaled does.
func whole(n, base uint64, units []string) string {
	if n < base {
		return fmt.Sprintf("%d%s", n, units[0])
	}
	return scaled(float64(n), float64(base), units)
}

// scaled writes a number with one decimal in the largest unit that keeps it at or above 1. Below the base it has a
// decimal only where that is more than a tenth of it.
func scaled(value, base float64, units []string) string {
	switch {
	case value == 0:
		return "0" + units[0]
	case value < 9.95:
		return fmt.Sprintf("%.1f%s", value, units[0])
	case value < base-0.5:
		return fmt.Sprintf("%.0f%s", value, units[0])
	}
	unit := 0
	// 999.95 would be written as 1000.0 of the smaller unit
	for ; value >= base-0.05 && unit < len(units)-1 || unit == 0; unit++ {
		value /= base
	}
	return fmt.Sprintf("%.1f%s", value, units[unit])
}

// percent never says 0 % of something or 100 % of a part.
func percent(part, of uint64) string {
	if of == 0 {
		return shareEmpty
	}
	p := 100 * float64(part) / float64(of)
	switch {
	case part > 0 && p < 0.5:
		return "<1%"
	case part < of && p >= 99.5:
		return ">99%"
	default:
		return fmt.Sprintf("%.0f%%", p)
	}
}

// clip cuts a line that would be wrapped, which would spoil the redrawing.
func clip(line string, columns int) string {
	if runes := []rune(line); len(runes) > columns {
		return string(runes[:columns])
	}
	return line
}
