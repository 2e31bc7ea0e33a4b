// SPDX-License-Identifier: Apache-2.0

package display

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestShare(t *testing.T) {
	for name, test := range map[string]struct {
		sizes []int
		lines int
		want  []int // nil: they do not fit
	}{
		"no limit":                           {[]int{1000, 0}, 0, []int{1000, 0}},
		"all rows fit":                       {[]int{3, 2}, 24, []int{3, 2}},
		"remaining lines are shared in turn": {[]int{9, 1, 9}, 21, []int{4, 1, 4}},
		"one row each":                       {[]int{9, 9}, 10, []int{1, 1}},
		"less than one row each":             {[]int{9, 9}, 9, nil},
		"a line for a section without rows":  {[]int{0}, 5, []int{0}},
		"no sections":                        {nil, 2, []int{}},
	} {
		rows, ok := Share(test.sizes, 3, Size{Lines: test.lines})
		if diff := cmp.Diff(test.want, rows); diff != "" || ok != (test.want != nil) {
			t.Errorf("%s: %v (-want +got):\n%s", name, ok, diff)
		}
	}
}

func TestScreenRedraws(t *testing.T) {
	printed := func(terminal bool) string {
		var out bytes.Buffer
		s := Screen{Out: &out, Size: func() (Size, bool) { return Size{80, 24}, terminal }}
		for _, lines := range [][]string{{"a", "b"}, {"c"}, {"d"}} {
			if err := s.Print(func(Size) []string { return lines }); err != nil {
				t.Fatal(err)
			}
		}
		return out.String()
	}
	if got, want := printed(true), "a\nb\n\x1b[2A\r\x1b[Jc\n\x1b[1A\r\x1b[Jd\n"; got != want {
		t.Errorf("on a terminal %q, want %q", got, want)
	}
	if got, want := printed(false), "a\nb\n\nc\n\nd\n"; got != want {
		t.Errorf("in a pipe %q, want %q", got, want)
	}
}

func TestClip(t *testing.T) {
	for _, test := range []struct {
		line    string
		columns int
		want    string
	}{{"abc", 2, "ab"}, {"abc", 3, "abc"}, {"abc", 0, "abc"}, {"näh", 2, "nä"}} {
		if got := Clip(test.line, test.columns); got != test.want {
			t.Errorf("%q in %d columns is %q", test.line, test.columns, got)
		}
	}
}
