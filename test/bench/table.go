// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
)

// The widths of the columns of the table of costs: name and length of the frame, cost of the empty program; then one
// group for each other program.
const (
	frameWidth = 35
	bytesWidth = 5
	floorWidth = 7
)

// groups are the columns of the programs but the empty one: ns over empty, least and most of the loads, and of ours
// the ratio to xdp1, where that takes enough to be compared with.
var groups = []struct {
	contender
	ratio bool
}{{xdp1, false}, {limit, false}, {plain, true}, {jumbo, true}}

// writeCostHeader writes the head of the table of costs.
func writeCostHeader(out io.Writer) error {
	var upper, lower strings.Builder
	fmt.Fprintf(&upper, "%-*s %*s %*s", frameWidth, "", bytesWidth, "", floorWidth, "empty")
	fmt.Fprintf(&lower, "%-*s %*s %*s", frameWidth, "frame", bytesWidth, "bytes", floorWidth, "ns")
	for _, g := range groups {
		columns := fmt.Sprintf(" | %5s %9s", "ns", "loads")
		if g.ratio {
			columns += fmt.Sprintf(" %6s", "/xdp1")
		}
		fmt.Fprintf(&upper, " | %-*s", len(columns)-len(" | "), g.contender)
		lower.WriteString(columns)
	}
	_, err := fmt.Fprintf(out, "%s |\n%s | budget of ours\n", upper.String(), lower.String())
	return err
}

// writeCosts writes a row of the table of costs.
func writeCosts(out io.Writer, k kind, c costs, verdict string) error {
	var row strings.Builder
	fmt.Fprintf(&row, "%-*s %*d %*.1f", frameWidth, k.name, bytesWidth, len(k.frame.Data), floorWidth, c[empty].ns)
	for _, g := range groups {
		f := c[g.contender]
		fmt.Fprintf(&row, " | %5.1f %9s", f.ns, f.loads())
		if g.ratio {
			ratio := "-"
			if c[xdp1].ns > enough {
				ratio = fmt.Sprintf("%.2f", f.toXDP1)
			}
			fmt.Fprintf(&row, " %6s", ratio)
		}
	}
	_, err := fmt.Fprintf(out, "%s | %s\n", row.String(), verdict)
	return err
}
