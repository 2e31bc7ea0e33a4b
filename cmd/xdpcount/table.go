// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"time"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/cmd/internal/display"
	"github.com/xdp-operator/xdp-operator/internal/format"
)

// show prints the report as tables. On a terminal they replace those of the previous report.
func show(s *display.Screen, r report) error {
	return s.Print(func(bounds display.Size) []string {
		if r.summary {
			bounds.Lines = 0 // the summary is not redrawn, and can scroll
		}
		return render(r, bounds)
	})
}

// render returns the lines of a report. If there are more than fit, the smaller classes of each interface are summed up in
// one line. If that does not fit either, there is one line per interface.
func render(r report, bounds display.Size) []string {
	var lines []string
	room := bounds.Lines - 1 // the cursor needs one line
	if len(r.sections) == 0 {
		lines = []string{when(r), "no interface is counted"}
	} else if rows, ok := display.Share(sizes(r.sections), frame, bounds); ok {
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
	for i := range lines {
		lines[i] = display.Clip(lines[i], bounds.Columns)
	}
	return lines
}

// frame is the number of lines of a section for title, column headers and sum.
const frame = 3

// sizes returns the number of classes of each section.
func sizes(sections []section) []int {
	var n []int
	for _, s := range sections {
		n = append(n, len(s.classes))
	}
	return n
}

// The columns take 69 characters. Names of protocols and of interfaces have at most 15.
const headFormat = "%-16s%-9s%10s%9s%9s%10s%6s"

func detailed(r report, s section, rows int) []string {
	lines := []string{
		fmt.Sprintf("%s  %s  %s", format.Printable(s.name), state(s), when(r)),
		fmt.Sprintf(headFormat, "PROTOCOL", "FAMILY", "PACKETS/S", "BITS/S", "PACKETS", "BYTES", "SHARE"),
	}
	shown := s.classes
	var rest []class
	if len(shown) > rows {
		shown, rest = s.classes[:rows-1], s.classes[rows-1:]
	}
	for _, c := range shown {
		family := format.None
		if _, ok := c.class.Number(); ok {
			family = c.class.Family().String()
		}
		lines = append(lines, row(c.class.Protocol(), family, c.rate, c.counts, s.all))
	}
	if rest != nil {
		var counts traffic.Counts
		var sum display.Rate
		for _, c := range rest {
			counts, sum = counts.Plus(c.counts), sum.Plus(c.rate)
		}
		name := fmt.Sprintf("%d others", len(rest))
		if len(shown) == 0 {
			name = fmt.Sprintf("%d protocols", len(rest))
		}
		lines = append(lines, row(name, "", sum, counts, s.all))
	}
	return append(lines, row("all", "", s.allRate, s.all, s.all))
}

// brief returns one line per interface. If there are more than fit, the last line is the number of the others.
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
		lines = append(lines, row(format.Printable(s.name), state(s), s.allRate, s.all, all))
	}
	return lines
}

func row(name, kind string, r display.Rate, counts, of traffic.Counts) string {
	return fmt.Sprintf(headFormat, name, kind,
		format.PerSecond(r.Packets), format.PerSecond(r.Bits),
		format.Packets(counts.Packets), format.Bytes(counts.Bytes),
		format.Share(counts.Packets, of.Packets))
}

// state returns the mode in which an interface is counted.
func state(s section) string {
	if s.gone {
		return "gone"
	}
	return string(s.mode)
}

// when returns the time of a report.
func when(r report) string {
	if r.summary {
		return fmt.Sprintf("%s  mean rates over %s", r.time.Format(time.DateTime), format.Seconds(r.elapsed))
	}
	return fmt.Sprintf("%s  the last %s", r.time.Format(time.DateTime), format.Seconds(r.elapsed))
}
