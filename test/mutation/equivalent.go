// SPDX-License-Identifier: Apache-2.0

package main

// equivalents are changes that no test can detect, because the program does the same. code is the line before the change.
var equivalents = []struct{ pkg, file, code, kind, why string }{
	{"api/traffic", "totals.go", "if a > math.MaxUint64-b {", "CONDITIONALS_BOUNDARY", "the sum of the two is math.MaxUint64 too"},
	{"api/traffic", "totals.go", "if a < b {", "CONDITIONALS_BOUNDARY", "the difference of equal numbers is 0 too"},
	{"controllers", "budget.go", "if c.nodes <= c.rounded && 4*c.nodes >= 3*c.rounded {", "CONDITIONALS_BOUNDARY", "a rounded number is rounded to itself"},
}

// equivalent returns why no test can detect the change, "" if one could.
func (m mutant) equivalent() string {
	for _, e := range equivalents {
		if e.pkg == m.pkg && e.file == m.file && e.code == m.code && e.kind == m.kind {
			return e.why
		}
	}
	return ""
}
