// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReport(t *testing.T) {
	e := equivalents[0]
	all := []mutant{
		{e.pkg, "a.go", 1, 1, "CONDITIONALS_NEGATION", "KILLED", "if a == b {"},
		{e.pkg, "a.go", 2, 1, "INVERT_LOOPCTRL", "TIMED OUT", "continue"},
		{e.pkg, "a.go", 3, 1, "ARITHMETIC_BASE", "NOT VIABLE", `a + "b"`},
		{e.pkg, "a.go", 4, 7, "CONDITIONALS_BOUNDARY", "LIVED", "if a < c {"},
		{e.pkg, e.file, 5, 1, e.kind, "LIVED", e.code},
	}
	var out bytes.Buffer
	if percent := report(&out, []string{e.pkg}, all); percent != 50 {
		t.Errorf("%.1f %% are detected, want 50", percent)
	}
	var lines []string
	for line := range strings.Lines(out.String()) {
		lines = append(lines, strings.TrimSpace(line))
	}
	want := []string{
		"", "Not detected:",
		e.pkg + "/a.go:4:7 CONDITIONALS_BOUNDARY LIVED", "if a < c {",
		e.pkg + "/" + e.file + ":5:1 " + e.kind + " LIVED", e.code, "equivalent: " + e.why,
		"",
		"package  changes  detected  percent  equivalent  left",
		"api/traffic        4         2     50.0           1     1",
		"all        4         2     50.0           1     1",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
}

// A line that was changed leaves its entry behind.
func TestEquivalentLinesExist(t *testing.T) {
	for _, e := range equivalents {
		code, err := os.ReadFile(filepath.Join("../..", e.pkg, e.file))
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(code, []byte(e.code+"\n")); n != 1 {
			t.Errorf("%s/%s has the line %q %d times", e.pkg, e.file, e.code, n)
		}
	}
}
