// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
)

func TestHighestCPU(t *testing.T) {
	for name, tc := range map[string]struct {
		list string
		want int // -1: an error
	}{
		"one CPU":                            {"0\n", 0},
		"one range":                          {"0-3\n", 3},
		"a gap after the first CPU":          {"0,2-3\n", 3},
		"gaps between ranges":                {"0-1,4-5,8-9,12-13\n", 13},
		"single numbers":                     {"0,2,4,6\n", 6},
		"CPU 0 is missing":                   {"8-15\n", 15},
		"the largest kernel":                 {"0-8191\n", 8191},
		"without a newline":                  {"0-3", 3},
		"an empty file":                      {"", -1},
		"an empty line":                      {"\n", -1},
		"words":                              {"all\n", -1},
		"a range without an end":             {"0-\n", -1},
		"a range without a start":            {"-3\n", -1},
		"a range of three numbers":           {"0-3-5\n", -1},
		"a range that decreases":             {"3-0\n", -1},
		"an element that is missing":         {"0,,3\n", -1},
		"a comma at the end":                 {"0,3,\n", -1},
		"numbers that are not in order":      {"4,0-2\n", -1},
		"a space":                            {"0, 3\n", -1},
		"two lines":                          {"0\n3\n", -1},
		"a sign":                             {"+3\n", -1},
		"a number that is too large":         {"0-65536\n", -1},
		"a number that no integer can store": {"0-99999999999999999999\n", -1},
	} {
		got, err := highestCPU(tc.list)
		if err != nil {
			got = -1
		}
		if got != tc.want {
			t.Errorf("%s: highestCPU(%q) = %d, error %v, want %d", name, tc.list, got, err, tc.want)
		}
	}
}

// TestPossibleCPUs: without gaps the number is that of the library, which returns an error for a list with gaps.
func TestPossibleCPUs(t *testing.T) {
	got, err := PossibleCPUs()
	if err != nil || got < runtime.NumCPU() {
		t.Fatalf("PossibleCPUs() = %d, error %v, and %d are online", got, err, runtime.NumCPU())
	}
	if want, err := ebpf.PossibleCPU(); err == nil && got != want {
		t.Errorf("PossibleCPUs() = %d, want %d", got, want)
	}
}

// listOf writes a list as the kernel does. Bit n of the set is CPU n.
func listOf(set []byte) (list string, highest int) {
	has := func(cpu int) bool { return cpu < 8*len(set) && set[cpu/8]&(1<<(cpu%8)) != 0 }
	var parts []string
	highest = -1
	for first := 0; first < 8*len(set); first++ {
		if !has(first) {
			continue
		}
		last := first
		for has(last + 1) {
			last++
		}
		part := strconv.Itoa(first)
		if last > first {
			part += "-" + strconv.Itoa(last)
		}
		parts = append(parts, part)
		first, highest = last, last
	}
	return strings.Join(parts, ",") + "\n", highest
}

func FuzzHighestCPU(f *testing.F) {
	f.Add("0,2-3\n", []byte{0b1101})
	f.Add("0-\n", []byte{})
	f.Add("9-7,,1", []byte{0xff, 0, 0x80})
	f.Fuzz(func(t *testing.T, text string, set []byte) {
		if highest, err := highestCPU(text); err == nil && !strings.Contains(text, strconv.Itoa(highest)) {
			t.Errorf("highestCPU(%q) = %d, which is not in the list", text, highest)
		}
		list, want := listOf(set[:min(len(set), 1024)])
		if want < 0 {
			return
		}
		if got, err := highestCPU(list); got != want || err != nil {
			t.Errorf("highestCPU(%q) = %d, error %v, want %d", list, got, err, want)
		}
	})
}
