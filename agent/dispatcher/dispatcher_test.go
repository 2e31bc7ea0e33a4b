// SPDX-License-Identifier: Apache-2.0

package dispatcher

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTheOrderOfPrograms(t *testing.T) {
	us := member{name: "count_frame", priority: priority, ours: true}
	first := member{name: "a", priority: 0, id: 1}
	usual := member{name: "b", priority: 50, id: 2}
	for name, tc := range map[string]struct {
		present []member
		joins   member
		want    []member
	}{
		"alone":                               {nil, us, []member{us}},
		"before what has libxdp's default":    {[]member{usual}, us, []member{us, usual}},
		"behind what wants to be the first":   {[]member{first, usual}, us, []member{first, us, usual}},
		"by name with the same priority":      {[]member{{name: "x", priority: 50, id: 1}}, member{name: "c", priority: 50}, []member{{name: "c", priority: 50}, {name: "x", priority: 50, id: 1}}},
		"what is loaded before what is not":   {[]member{{name: "x", id: 1}}, member{name: "x"}, []member{{name: "x", id: 1}, {name: "x"}}},
		"by the tag with the same name":       {[]member{{name: "x", id: 1, tag: "b"}}, member{name: "x", id: 2, tag: "a"}, []member{{name: "x", id: 2, tag: "a"}, {name: "x", id: 1, tag: "b"}}},
		"and last by the time of loading":     {[]member{{name: "x", id: 1, loaded: time.Second}}, member{name: "x", id: 2, loaded: 1}, []member{{name: "x", id: 2, loaded: 1}, {name: "x", id: 1, loaded: time.Second}}},
		"what is there is brought into order": {[]member{usual, first}, us, []member{first, us, usual}},
	} {
		if diff := cmp.Diff(tc.want, with(tc.present, tc.joins), cmp.AllowUnexported(member{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	left := without([]member{first, us, usual})
	if diff := cmp.Diff([]member{first, usual}, left, cmp.AllowUnexported(member{})); diff != "" {
		t.Errorf("without us (-want +got):\n%s", diff)
	}
}

func TestTheConfigurationOfADispatcher(t *testing.T) {
	members := []member{
		{priority: 1, actions: actions, flags: flagFrags},
		{priority: 50, actions: 1<<1 | 1<<2, flags: flagFrags},
	}
	c := configOf(members)
	// As struct xdp_dispatcher_config lies in memory, little endian: four bytes and three arrays of ten numbers.
	zeros := strings.Repeat("00000000", 8)
	want := "ec020201" + "04000080" + "06000080" + zeros + "01000000" + "32000000" + zeros + "20000000" + "20000000" + zeros
	if diff := cmp.Diff(want, hex.EncodeToString(c.bytes())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if back, err := parseConfig(c.bytes()); err != nil || back != c {
		t.Errorf("read back it is %v, error %v", back, err)
	}
	members[1].flags = 0
	if configOf(members).Frags != 0 {
		t.Error("one that takes one buffer only gets many")
	}
}

func TestConfigurationsThatAreNotUnderstood(t *testing.T) {
	good := configOf([]member{{}}).bytes()
	change := func(at int, to byte) []byte { b := append([]byte{}, good...); b[at] = to; return b }
	for want, b := range map[string][]byte{
		"of version 1":                                 make([]byte, 84),
		"of version 3, only version 2":                 change(1, 3),
		"names 0 programs":                             change(2, 0),
		"names 11 programs":                            change(2, 11),
		"the dispatcher's configuration has 123 bytes": good[:123],
		"has 128 bytes":                                append(append([]byte{}, good...), 0, 0, 0, 0),
	} {
		if _, err := parseConfig(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
