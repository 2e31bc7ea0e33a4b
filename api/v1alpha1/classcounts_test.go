// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// pattern is the pattern with which the API server validates counts. It is the same for each field.
var pattern = sync.OnceValue(func() *regexp.Regexp {
	var found []string
	for _, kind := range []string{"xdpcounters", "xdpnodestates"} {
		crd, err := os.ReadFile("../../config/crd/bases/xdp-operator.io_" + kind + ".yaml")
		if err != nil {
			panic(err)
		}
		var tree any
		if err := yaml.Unmarshal(crd, &tree); err != nil {
			panic(err)
		}
		found = append(found, patternsOfCounts(tree)...)
	}
	if len(found) != 4 || len(slices.Compact(slices.Clone(found))) != 1 {
		panic(fmt.Sprintf("the fields named counts have the patterns %q, want the same one 4 times", found))
	}
	return regexp.MustCompile(found[0])
})

// patternsOfCounts returns the patterns of all fields named counts in a schema.
func patternsOfCounts(schema any) (patterns []string) {
	switch s := schema.(type) {
	case []any:
		for _, v := range s {
			patterns = append(patterns, patternsOfCounts(v)...)
		}
	case map[string]any:
		for name, v := range s {
			if field, ok := v.(map[string]any); ok && name == "counts" {
				patterns = append(patterns, fmt.Sprint(field["pattern"]))
			}
			patterns = append(patterns, patternsOfCounts(v)...)
		}
	}
	return patterns
}

func TestCountsJSON(t *testing.T) {
	for text, want := range map[string]Counts{
		`"IPv4/TCP 120 84000 12 67200"`:                    {{"IPv4/TCP", 120, 84_000, 12, 67_200}},
		`"IPv4/TCP 120 84000 12 67200, ARP 3 126"`:         {{"IPv4/TCP", 120, 84_000, 12, 67_200}, {Class: "ARP", Packets: 3, Bytes: 126}},
		`"Other 0 0 0 8"`:                                  {{Class: "Other", BPS: 8}},
		`"IPv6/UDP 9223372036854775807 1"`:                 {{Class: "IPv6/UDP", Packets: math.MaxInt64, Bytes: 1}},
		`"a class of a later 2 version 1 2 3 4, ARP 1 60"`: {{"a class of a later 2 version", 1, 2, 3, 4}, {Class: "ARP", Packets: 1, Bytes: 60}},
		`"IPv6/IPv6-ICMP 999999999999 99999999999999 0 1"`: {{"IPv6/IPv6-ICMP", 999_999_999_999, 99_999_999_999_999, 0, 1}},
	} {
		var got Counts
		if err := json.Unmarshal([]byte(text), &got); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s is read as %+v, %v; want %+v", text, got, err, want)
		}
		back, err := json.Marshal(want)
		if err != nil || string(back) != text {
			t.Errorf("%+v is written as %s, %v; want %s", want, back, err, text)
		}
		if !pattern().MatchString(want.String()) {
			t.Errorf("the API server would reject %q", want)
		}
	}
}

func TestCountsOfEveryClassMatchSchema(t *testing.T) {
	var every Counts
	for class := range traffic.Class(traffic.NumClasses) {
		every = append(every, ClassCounts{class.String(), math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64})
		for _, want := range []Counts{every[class:], {{Class: class.String(), Packets: 1, Bytes: 2}}} {
			expectReadBack(t, want)
		}
	}
	expectReadBack(t, every)
}

func expectReadBack(t *testing.T, want Counts) {
	t.Helper()
	if text := want.String(); !pattern().MatchString(text) || len(text) > 66_000 {
		t.Errorf("the API server would reject %q", text)
	}
	var got Counts
	if raw, err := json.Marshal(want); err != nil || json.Unmarshal(raw, &got) != nil || !slices.Equal(got, want) {
		t.Errorf("%s is read as %+v", raw, got)
	}
}

func TestUnmarshalInvalidCounts(t *testing.T) {
	for _, text := range []string{
		`""`, `"ARP"`, `"ARP 1"`, `"ARP 1 2 3"`, `"ARP 1 2 3 4 5"`, `"ARP one 2"`, `"ARP -1 2"`, `"ARP 1.5 2"`, `" 1 2"`, `"1 2"`, `"ARP 1 2 "`, `{"class":"ARP"}`, `7`,
		`"ARP 1 2,"`, `"ARP 1 2, "`, `", ARP 1 2"`, `"ARP 1 2,Other 1 2"`, `"ARP 1 2, Other"`, `"ARP, 1 2"`, `["ARP 1 2"]`,
	} {
		var got Counts
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s is read as %+v", text, got)
		}
		var s string
		if json.Unmarshal([]byte(text), &s) == nil && pattern().MatchString(s) {
			t.Errorf("the API server would accept %q, which cannot be unmarshaled", s)
		}
	}
}

func TestUnmarshalCountsSaturates(t *testing.T) {
	var got Counts
	err := json.Unmarshal([]byte(`"ARP 9999999999999999999 99999999999999999999999"`), &got)
	if want := (Counts{{Class: "ARP", Packets: math.MaxInt64, Bytes: math.MaxInt64}}); err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}
