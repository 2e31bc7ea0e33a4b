// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/cmd/internal/display"
	"github.com/xdp-operator/xdp-operator/test/util/golden"
)

// manySections returns a report of n interfaces with numbers of every width.
func manySections(n int) report {
	var from, to sample
	from.time, to.time = noon, noon.Add(2*time.Second)
	from.totals, to.totals = map[traffic.MapID]traffic.Totals{}, map[traffic.MapID]traffic.Totals{}
	names := []string{"eth0", "eth0.100é-abcd", "lo"}
	modes := []plan.Mode{plan.Native, plan.Generic, plan.Generic}
	for i := range n {
		c := counted{name: names[i%3], mode: modes[i%3], id: id(uint32(i)), gone: i == 1}
		before := totals(map[traffic.Class]uint64{tcp4: 1_000_000, udp4: 12})
		after := before
		if i%3 != 2 { // lo has no traffic
			after = after.Plus(totals(map[traffic.Class]uint64{
				tcp4: 246_912, udp4: 1, tcp6: 1999,
				traffic.IP(traffic.IPv4, 134): 7, traffic.IP(traffic.IPv6, 253): 3, traffic.IP(traffic.IPv6, 0): 999_950,
				traffic.ClassARP: 20, traffic.ClassOther: 1000, traffic.ClassMalformed: 2,
			}))
		} else {
			before, after = traffic.Totals{}, traffic.Totals{}
		}
		from.totals[c.id], to.totals[c.id] = before, after
		to.interfaces = append(to.interfaces, c)
	}
	return measure(from, to)
}

func TestTable(t *testing.T) {
	summary := manySections(1)
	summary.summary = true
	for name, test := range map[string]struct {
		report report
		bounds display.Size
	}{
		"one interface":                {manySections(1), display.Size{}},
		"several interfaces in a pipe": {manySections(3), display.Size{}},
		"terminal of 80 by 24":         {manySections(3), display.Size{Columns: 80, Lines: 24}},
		"terminal of 8 lines":          {manySections(1), display.Size{Columns: 80, Lines: 8}},
		"terminal of 5 lines":          {manySections(1), display.Size{Columns: 80, Lines: 5}},
		"terminal of 40 columns":       {manySections(1), display.Size{Columns: 40, Lines: 24}},
		"one line per interface":       {manySections(9), display.Size{Columns: 80, Lines: 24}},
		"more interfaces than lines":   {manySections(40), display.Size{Columns: 80, Lines: 10}},
		"summary":                      {summary, display.Size{Columns: 80, Lines: 24}},
		"no interface":                 {report{time: noon, elapsed: time.Second}, display.Size{Columns: 80, Lines: 24}},
	} {
		t.Run(name, func(t *testing.T) {
			lines := render(test.report, test.bounds)
			for _, line := range lines {
				if n := len([]rune(line)); test.bounds.Columns > 0 && n > test.bounds.Columns {
					t.Errorf("%d columns: %q", n, line)
				}
			}
			if test.bounds.Lines > 0 && len(lines) >= test.bounds.Lines {
				t.Errorf("%d lines do not fit into %d with the cursor's", len(lines), test.bounds.Lines)
			}
			golden.Check(t, "testdata/"+name+".txt", strings.Join(lines, "\n")+"\n")
		})
	}
}

func TestNamesAreEscapedOnATerminal(t *testing.T) {
	for _, sections := range []int{1, 9} {
		r := manySections(sections)
		r.sections[0].name = "a\x1b[31m"
		text := strings.Join(render(r, display.Size{Columns: 80, Lines: 24}), "\n")
		if strings.Contains(text, "\x1b") || !strings.Contains(text, `a\x1b[31m `) {
			t.Errorf("%d sections:\n%q", sections, text)
		}
	}
}

func TestRenderFitsEveryTerminal(t *testing.T) {
	for sections := range 12 {
		for height := 2; height < 40; height++ {
			if lines := render(manySections(sections), display.Size{Columns: 80, Lines: height}); len(lines) >= height {
				t.Errorf("%d sections on %d lines take %d", sections, height, len(lines))
			}
		}
	}
}

func TestShowOnTerminal(t *testing.T) {
	var out bytes.Buffer
	s := &display.Screen{Out: &out, Size: func() (display.Size, bool) { return display.Size{Columns: 80, Lines: 24}, true }}
	for _, sections := range []int{2, 1, 1} {
		if err := show(s, manySections(sections)); err != nil {
			t.Fatal(err)
		}
	}
	text := func(sections int) string {
		return strings.Join(render(manySections(sections), display.Size{Columns: 80, Lines: 24}), "\n") + "\n"
	}
	want := text(2) + "\x1b[23A\r\x1b[J" + text(1) + "\x1b[12A\r\x1b[J" + text(1)
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestShowInPipe(t *testing.T) {
	var out bytes.Buffer
	s := &display.Screen{Out: &out, Size: func() (display.Size, bool) { return display.Size{}, false }}
	for range 2 {
		if err := show(s, manySections(1)); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.Join(render(manySections(1), display.Size{}), "\n") + "\n"
	if diff := cmp.Diff(text+"\n"+text, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	summary := manySections(1)
	summary.summary = true
	summary.time = summary.time.In(time.FixedZone("elsewhere", 3600))
	large := manySections(3)
	large.sections[2].all.Bytes = math.MaxUint64
	for _, r := range []report{large, summary, {time: noon, elapsed: time.Second}} {
		if err := writeJSON(&out, r); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 3 {
		t.Errorf("%d lines for 3 reports", n)
	}
	golden.Check(t, "testdata/reports.jsonl", out.String())
}
