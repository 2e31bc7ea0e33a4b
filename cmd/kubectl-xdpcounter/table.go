// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/cmd/internal/display"
	"github.com/xdp-operator/xdp-operator/internal/format"
)

// render returns the lines of a report. If there are more than fit, the smaller rows of each section are summed up in one
// line. If that does not fit either, there is one line per counter.
func render(r report, bounds display.Size) []string {
	var lines []string
	notes := 0
	if r.note != "" {
		lines = append(lines, "! "+format.Printable(r.note))
		notes = 1
	}
	room := bounds
	if room.Lines > 0 {
		room.Lines = max(room.Lines-notes, 1)
	}
	rows, fits := display.Share(sizes(r.sections), frame, room)
	switch {
	case len(r.sections) == 0:
		lines = append(lines, "no XDPCounters found")
	case r.by == byCounter || !fits:
		lines = append(lines, overview(r, room)...)
	default:
		for i, s := range r.sections {
			if i > 0 {
				lines = append(lines, "")
			}
			lines = append(lines, title(r, s, bounds.Columns))
			lines = append(lines, table(kindOf[r.by], r, first(s.rows, rows[i]), s.all, bounds.Columns)...)
		}
	}
	if room := bounds.Lines - 1; room > 0 && len(lines) > room { // the cursor needs one line
		lines = lines[:room]
	}
	for i := range lines {
		lines[i] = display.Clip(strings.TrimRight(lines[i], " "), bounds.Columns)
	}
	return lines
}

// frame is the number of lines of a section for title, column headers and sum.
const frame = 3

// sizes returns the number of rows of each section.
func sizes(sections []section) []int {
	var n []int
	for _, s := range sections {
		n = append(n, len(s.rows))
	}
	return n
}

// first returns n rows. If there are more, the last one is the sum of those that are left out.
func first(rows []row, n int) []row {
	if len(rows) <= n {
		return rows
	}
	name := fmt.Sprintf("%d others", len(rows)-n+1)
	if n == 1 {
		name = fmt.Sprintf("all %d", len(rows))
	}
	return append(rows[:n-1:n-1], sum(name, rows[n-1:]))
}

// overview returns one line per counter. If there are more than fit, the last line is the number of the others.
func overview(r report, bounds display.Size) []string {
	var rows []row
	for _, s := range r.sections {
		line := s.all
		line.name, line.mode = s.name, readiness(s)
		rows = append(rows, line)
	}
	left := 0
	if room := bounds.Lines - 2; bounds.Lines > 0 && len(rows) > room { // one line each for the column headers and the cursor
		shown := max(room-1, 0)
		rows, left = rows[:shown], len(rows)-shown
	}
	lines := table(kindOf[byCounter], r, rows, row{}, bounds.Columns)
	if left > 0 {
		lines = append(lines, fmt.Sprintf("and %d more counters", left))
	}
	return lines
}

// title returns the name and the state of the counter, as much as fits.
func title(r report, s section, columns int) string {
	text := s.name
	for _, part := range []string{readiness(s), "nodes " + s.nodes, "interfaces " + s.interfaces, age(s.reported, r.time)} {
		switch {
		case strings.HasSuffix(part, " "): // the value is not known
		case columns > 0 && width(text)+2+width(part) > columns:
			return text
		default:
			text += "  " + part
		}
	}
	return text
}

func readiness(s section) string {
	if s.ready == metav1.ConditionTrue {
		if s.reason == v1alpha1.ReasonSuspended {
			return s.reason
		}
		return "Ready"
	}
	return s.reason
}

func age(reported, now time.Time) string {
	if reported.IsZero() {
		return "never reported"
	}
	return fmt.Sprintf("reported %s ago", max(now.Sub(reported), 0).Round(time.Second))
}

// kind describes the rows of a table.
type kind struct {
	name string           // header of the column of names
	head string           // header of a second text column; empty if there is none
	word func(row) string // its content
	// The rows are parts of a sum. Counters are not, because two of them can count the same packet.
	parts bool
}

var kindOf = map[string]kind{
	byCounter:   {"COUNTER", "STATE", func(r row) string { return r.mode }, false},
	byProtocol:  {"PROTOCOL", "FAMILY", func(r row) string { return r.family }, true},
	byFamily:    {"FAMILY", "", nil, true},
	byNode:      {"NODE", "", nil, true},
	byInterface: {"INTERFACE", "MODE", func(r row) string { return r.mode }, true},
}

// label returns the full name of a row for a terminal.
func (r row) label() string {
	if r.node != "" {
		return r.node + "/" + format.Printable(r.name)
	}
	return format.Printable(r.name)
}

// column is a column of a table.
type column struct {
	head  string
	width int
	left  bool // aligned to the left
	cell  func(row) string
	rank  int // if there is not enough space, the column with the largest rank is removed first
}

// Limits of the columns whose width depends on their content.
const (
	shortestName    = 12
	shortestHistory = 8
	longestHistory  = 40
)

// table returns the column headers, the rows and, if the rows are parts of a sum, the sum, with the columns that fit.
func table(k kind, r report, rows []row, all row, columns int) []string {
	list := []column{
		{"PACKETS/S", 10, false, func(x row) string { return perSecond(x, func(r display.Rate) float64 { return r.Packets }) }, 0},
		{"BITS/S", 9, false, func(x row) string { return perSecond(x, func(r display.Rate) float64 { return r.Bits }) }, 1},
		{"PACKETS", 9, false, func(x row) string { return format.Packets(x.counts.Packets) }, 3},
		{"BYTES", 10, false, func(x row) string { return format.Bytes(x.counts.Bytes) }, 5},
	}
	shown := rows
	if k.parts {
		list = append(list, column{"SHARE", 6, false, func(x row) string { return shareOf(x, all, r.sort) }, 2})
		shown = append(slices.Clip(rows), all)
	}
	name := width(k.name)
	words := width(k.head)
	recorded := 0
	for _, x := range shown {
		name = max(name, width(x.label()))
		if k.word != nil {
			words = max(words, width(k.word(x)))
		}
		recorded = max(recorded, len(x.history))
	}
	if k.head != "" {
		list = append([]column{{k.head, words + 1, true, func(x row) string {
			if word := k.word(x); word != "" || x.sum {
				return word
			}
			return format.None
		}, 4}}, list...)
	}
	name++
	// If the table is too wide, names are shortened first, and then columns are removed.
	for columns > 0 && name+widthOf(list) > columns {
		if shorter := columns - widthOf(list); shorter > shortestName {
			name = shorter
			break
		}
		drop := 0
		for i, c := range list {
			if c.rank > list[drop].rank {
				drop = i
			}
		}
		if list[drop].rank == 0 {
			name = shortestName
			break
		}
		list = append(list[:drop:drop], list[drop+1:]...)
	}
	if left := columns - name - widthOf(list) - 2; recorded > 0 && left >= shortestHistory {
		cells := min(left, longestHistory)
		list = append(list, column{"  HISTORY", cells + 2, true, func(x row) string { return "  " + sparkline(x.history, cells) }, 6})
	}
	line := func(first string, cell func(column) string) string {
		var b strings.Builder
		b.WriteString(pad(shorten(first, name-1), name, true))
		for _, c := range list {
			b.WriteString(pad(cell(c), c.width, c.left))
		}
		return b.String()
	}
	lines := []string{line(k.name, func(c column) string { return c.head })}
	for _, x := range shown {
		lines = append(lines, line(x.label(), func(c column) string { return c.cell(x) }))
	}
	return lines
}

func widthOf(list []column) (n int) {
	for _, c := range list {
		n += c.width
	}
	return n
}

func perSecond(x row, of func(display.Rate) float64) string {
	if x.rate == nil {
		return format.None
	}
	return format.PerSecond(of(*x.rate))
}

// shareOf returns the share of the value by which the rows are sorted.
func shareOf(x, all row, sort string) string {
	switch {
	case sort == sortTotal:
		return format.Share(x.counts.Packets, all.counts.Packets)
	case x.rate == nil || all.rate == nil:
		return format.None
	default:
		return format.Share(x.rate.Packets, all.rate.Packets)
	}
}

// pad appends or prepends spaces.
func pad(text string, n int, left bool) string {
	fill := strings.Repeat(" ", max(n-width(text), 0))
	if left {
		return text + fill
	}
	return fill + text
}

// shorten removes the middle of a text that is too long, because names of nodes often differ at their ends.
func shorten(text string, n int) string {
	runes := []rune(text)
	if len(runes) <= n {
		return text
	}
	head := (n - 1) / 2
	return string(runes[:head]) + "…" + string(runes[len(runes)-(n-1-head):])
}

func width(text string) int { return len([]rune(text)) }

var levels = []rune("▁▂▃▄▅▆▇█")

// sparkline draws the last n values relative to the largest one, the latest at the right. Only zero has the lowest level.
func sparkline(values []float64, n int) string {
	values = values[max(len(values)-n, 0):]
	largest := 0.0
	for _, v := range values {
		largest = max(largest, v)
	}
	line := []rune(strings.Repeat(" ", n-len(values)))
	for _, v := range values {
		level := 0
		if v > 0 {
			level = min(1+int(v/largest*float64(len(levels)-1)), len(levels)-1)
		}
		line = append(line, levels[level])
	}
	return string(line)
}
