// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

func TestBenchResult(t *testing.T) {
	for name, tc := range map[string]struct {
		lines []string
		want  string // of the error, "" for none
	}{
		"measured": {[]string{`#guest {"end":{"status":0,"seconds":2}}`, `#guest {"done":true}`}, ""},
		"a budget is missed there": {
			[]string{`#guest {"end":{"status":1,"seconds":2}}`, `#guest {"done":true}`}, "ended with status 1",
		},
		"the guest could not run it": {[]string{`#guest {"error":"no such file"}`, `#guest {"done":true}`}, "no such file"},
		"the guest ended early":      {nil, "ended before it had measured"},
		"a line is damaged":          {[]string{`#guest {"done":`}, "from the guest"},
	} {
		r := &benchResult{}
		for _, line := range tc.lines {
			r.read(line)
		}
		err := r.verdict()
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: the error is %v, want %q", name, err, tc.want)
		}
	}
}
