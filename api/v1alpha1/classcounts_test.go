package v1alpha1

import (
	"encoding/json"
	"math"
	"regexp"
	"testing"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// pattern is what the API server holds each text to.
var pattern = regexp.MustCompile(`^(.* )?\S*[^0-9 ]\S*( [0-9]{1,19}){2}(( [0-9]{1,19}){2})?$`)

func TestCountsAreOneText(t *testing.T) {
	for text, want := range map[string]ClassCounts{
		`"IPv4/TCP 120 84000 12 67200"`:                    {"IPv4/TCP", 120, 84_000, 12, 67_200},
		`"ARP 3 126"`:                                      {Class: "ARP", Packets: 3, Bytes: 126},
		`"Other 0 0 0 8"`:                                  {Class: "Other", BPS: 8},
		`"IPv6/UDP 9223372036854775807 1"`:                 {Class: "IPv6/UDP", Packets: math.MaxInt64, Bytes: 1},
		`"a-class-of-a-later-version 1 2 3 4"`:             {"a-class-of-a-later-version", 1, 2, 3, 4},
		`"IPv6/IPv6-ICMP 999999999999 99999999999999 0 1"`: {"IPv6/IPv6-ICMP", 999_999_999_999, 99_999_999_999_999, 0, 1},
	} {
		var got ClassCounts
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s is read as %+v, %v; want %+v", text, got, err, want)
		}
		back, err := json.Marshal(want)
		if err != nil || string(back) != text {
			t.Errorf("%+v is written as %s, %v; want %s", want, back, err, text)
		}
		if !pattern.MatchString(want.String()) {
			t.Errorf("the API server would refuse %q", want)
		}
	}
}

func TestEveryClassFitsTheSchema(t *testing.T) {
	for class := range traffic.Class(traffic.NumClasses) {
		for _, want := range []ClassCounts{
			{class.String(), math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64},
			{Class: class.String(), Packets: 1, Bytes: 2},
		} {
			if text := want.String(); !pattern.MatchString(text) || len(text) > 128 {
				t.Errorf("the API server would refuse %q", text)
			}
			var got ClassCounts
			if raw, err := json.Marshal(want); err != nil || json.Unmarshal(raw, &got) != nil || got != want {
				t.Errorf("%s is read as %+v", raw, got)
			}
		}
	}
}

func TestCountsThatAreNoneAreAnError(t *testing.T) {
	for _, text := range []string{`""`, `"ARP"`, `"ARP 1"`, `"ARP 1 2 3"`, `"ARP 1 2 3 4 5"`, `"ARP one 2"`, `"ARP -1 2"`, `"ARP 1.5 2"`, `" 1 2"`, `"1 2"`, `"ARP 1 2 "`, `{"class":"ARP"}`, `7`} {
		var got ClassCounts
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s is read as %+v", text, got)
		}
		var s string
		if json.Unmarshal([]byte(text), &s) == nil && pattern.MatchString(s) {
			t.Errorf("the API server would let %q in, and nobody could read it", s)
		}
	}
}

func TestNumbersTooLargeCountAsTheLargest(t *testing.T) {
	var got ClassCounts
	if err := json.Unmarshal([]byte(`"ARP 9999999999999999999 99999999999999999999999"`), &got); err != nil || got.Packets != math.MaxInt64 || got.Bytes != math.MaxInt64 {
		t.Errorf("%+v, %v", got, err)
	}
}
