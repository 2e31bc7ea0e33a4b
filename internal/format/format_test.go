// SPDX-License-Identifier: Apache-2.0

package format

import (
	"math"
	"testing"
	"time"
)

func TestPerSecond(t *testing.T) {
	for name, test := range map[string]struct {
		rate float64
		want string
	}{
		"zero":                                {0, "0"},
		"below ten with one decimal":          {0.5, "0.5"},
		"rounded, still below ten":            {9.94, "9.9"},
		"rounded up to ten without a decimal": {9.96, "10"},
		"below the first unit":                {999.4, "999"},
		"rounded up to the first unit":        {999.6, "1.0k"},
		"thousands":                           {1500, "1.5k"},
		"just below the second unit":          {999_949, "999.9k"},
		"rounded up to the second unit":       {999_950, "1.0M"},
		"beyond the largest unit":             {1e21, "1000.0E"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := PerSecond(test.rate); got != test.want {
				t.Errorf("PerSecond(%v) = %q, want %q", test.rate, got, test.want)
			}
		})
	}
}

func TestPacketsAndBytes(t *testing.T) {
	for name, test := range map[string]struct{ got, want string }{
		"no packets":                     {Packets[uint64](0), "0"},
		"few packets are exact":          {Packets[uint64](7), "7"},
		"all digits below a thousand":    {Packets[uint64](999), "999"},
		"a thousand packets":             {Packets[uint64](1000), "1.0k"},
		"packets before the next unit":   {Packets[uint64](999_949), "999.9k"},
		"packets rounded to a unit":      {Packets[uint64](999_950), "1.0M"},
		"as many packets as an int64":    {Packets[int64](math.MaxInt64), "9.2E"},
		"all digits below a kibibyte":    {Bytes[uint64](1023), "1023B"},
		"a kibibyte":                     {Bytes[uint64](1024), "1.0KiB"},
		"bytes rounded to a unit":        {Bytes[uint64](1024*1024 - 1), "1.0MiB"},
		"as many bytes as a uint64":      {Bytes[uint64](math.MaxUint64), "16.0EiB"},
		"a duration of less than 0.05 s": {Seconds(40 * time.Millisecond), "0.0 s"},
		"a duration of two seconds":      {Seconds(2 * time.Second), "2.0 s"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.got != test.want {
				t.Errorf("got %q, want %q", test.got, test.want)
			}
		})
	}
}

func TestShare(t *testing.T) {
	for name, test := range map[string]struct{ got, want string }{
		"of nothing":                             {Share[uint64](0, 0), None},
		"none":                                   {Share[uint64](0, 5), "0%"},
		"one of a thousand":                      {Share[uint64](1, 1000), "<1%"},
		"just below half a percent":              {Share(0.4999, 100.0), "<1%"},
		"half a percent":                         {Share(0.51, 100.0), "1%"},
		"a third":                                {Share[int64](1, 3), "33%"},
		"just below 99.5 percent":                {Share(99.49, 100.0), "99%"},
		"999 of a thousand":                      {Share[uint64](999, 1000), ">99%"},
		"all but one of a number beyond float64": {Share[int64](math.MaxInt64-1, math.MaxInt64), ">99%"},
		"all":                                    {Share[uint64](4, 4), "100%"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.got != test.want {
				t.Errorf("got %q, want %q", test.got, test.want)
			}
		})
	}
}

func TestFirstFew(t *testing.T) {
	for name, test := range map[string]struct {
		items []string
		want  string
	}{
		"no items":             {nil, ""},
		"one item":             {[]string{"a"}, "a"},
		"three items":          {[]string{"a", "b", "c"}, "a, b, c"},
		"one item too many":    {[]string{"a", "b", "c", "d"}, "a, b, c and 1 more"},
		"three items too many": {[]string{"a", "b", "c", "d", "e", "f"}, "a, b, c and 3 more"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := FirstFew(test.items); got != test.want {
				t.Errorf("FirstFew(%q) = %q, want %q", test.items, got, test.want)
			}
		})
	}
}

func TestFirstFewOf(t *testing.T) {
	for name, test := range map[string]struct {
		items []string
		n     int
		want  string
	}{
		"as many as there are items":   {[]string{"a", "b"}, 2, "a, b"},
		"more than there are items":    {[]string{"a", "b"}, 5, "a, b and 3 more"},
		"more, and more than are few":  {[]string{"a", "b", "c", "d"}, 1000, "a, b, c and 997 more"},
		"fewer than there are to name": {[]string{"a", "b"}, 1, "a, b"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := FirstFewOf(test.items, test.n); got != test.want {
				t.Errorf("FirstFewOf(%q, %d) = %q, want %q", test.items, test.n, got, test.want)
			}
		})
	}
}

func TestPrintable(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"nothing":                           {"", ""},
		"a usual name":                      {"eth0.100@if5", "eth0.100@if5"},
		"letters of other scripts":          {"größe-網0", "größe-網0"},
		"quotes and backslashes":            {`a"b'c\x1b`, `a"b'c\x1b`},
		"a space":                           {"a b", "a b"},
		"ESC":                               {"a\x1b[31mb", `a\x1b[31mb`},
		"BEL and DEL":                       {"\a\x7f", `\a\x7f`},
		"a line break":                      {"a\r\nb", `a\r\nb`},
		"a control character of two bytes":  {"a\u009b31m", `a\u009b31m`},
		"a change of the writing direction": {"a\u202eb", `a\u202eb`},
		"a space of no width":               {"a\u200bb", `a\u200bb`},
		"a byte that is no UTF-8":           {"a\x9b31m\xff", `a\x9b31m\xff`},
		"the replacement character":         {"a\ufffdb", "a\ufffdb"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Printable(test.text); got != test.want {
				t.Errorf("Printable(%q) = %q, want %q", test.text, got, test.want)
			}
		})
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 nodes have", 1: "1 node has", 2: "2 nodes have"} {
		if got := Count(n, "node has", "nodes have"); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
}
