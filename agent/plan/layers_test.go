// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/test/util/golden"
)

// The interfaces of nodes, lowest first.
var (
	bonded = []Interface{
		{Name: "eth0", Index: 2, Master: 4}, {Name: "eth1", Index: 3, Master: 4}, {Name: "bond0", Index: 4, Kind: "bond", Primary: true},
		{Name: "bond0.100", Index: 5, Kind: "vlan", Parent: 4}, {Name: "eth2", Index: 6},
	}
	withoutMember = []Interface{
		{Name: "eth0", Index: 2}, {Name: "eth1", Index: 3, Master: 4}, {Name: "bond0", Index: 4, Kind: "bond", Primary: true},
	}
	memberInUse = []Interface{
		{Name: "eth0", Index: 2, Master: 4, Hook: Hook{Program: 9, Mode: Native}}, {Name: "eth1", Index: 3, Master: 4}, {Name: "bond0", Index: 4, Kind: "bond", Primary: true},
	}
	bondInUse = []Interface{
		{Name: "eth0", Index: 2, Master: 4}, {Name: "eth1", Index: 3, Master: 4}, {Name: "bond0", Index: 4, Kind: "bond", Primary: true, Hook: Hook{Program: 9, Mode: Native}},
	}
	teamed  = []Interface{{Name: "eth0", Index: 2, Master: 3}, {Name: "team0", Index: 3, Kind: "team"}}
	bridged = []Interface{
		{Name: "br0", Index: 2, Kind: "bridge", Primary: true}, {Name: "eth0", Index: 3, Master: 2}, {Name: "vnet0", Index: 4, Kind: "tun", Master: 2},
	}
	tagged = []Interface{
		{Name: "eth0", Index: 2}, {Name: "eth0.100", Index: 3, Kind: "vlan", Parent: 2, Primary: true}, {Name: "mac0", Index: 4, Kind: "macvlan", Parent: 3},
	}
	azure = []Interface{
		{Name: "eth0", Index: 2, Primary: true}, {Name: "enP1s1", Index: 3, Master: 2},
	}
	azureBonded = []Interface{
		{Name: "bond0", Index: 1, Kind: "bond"}, {Name: "eth0", Index: 2, Master: 1}, {Name: "eth1", Index: 3, Master: 1}, {Name: "enP1s1", Index: 4, Master: 2},
	}
	switched = []Interface{
		{Name: "ovs-system", Index: 2, Kind: "openvswitch"}, {Name: "br-ex", Index: 3, Kind: "openvswitch", Primary: true},
		{Name: "eth0", Index: 4, Master: 2}, {Name: "br-ex.7", Index: 5, Kind: "vlan", Parent: 3},
	}
	vlanInBond = []Interface{
		{Name: "eth0", Index: 2}, {Name: "eth0.5", Index: 3, Kind: "vlan", Parent: 2, Master: 5},
		{Name: "eth1", Index: 4, Master: 5, Hook: Hook{Program: 9, Mode: Native}}, {Name: "bond0", Index: 5, Kind: "bond"},
	}
	overlaid   = []Interface{{Name: "eth0", Index: 2, Primary: true}, {Name: "vx0", Index: 3, Kind: "vxlan", Parent: 2}}
	everything = []string{"*"}
)

func TestWhereStackedInterfacesAreCounted(t *testing.T) {
	for name, tc := range map[string]struct {
		selection  Selection
		interfaces []Interface
		counted    []string
		elsewhere  map[string][]string
	}{
		"a bond at its members, if all are selected": {
			Selection{Names: everything}, bonded, []string{"eth0", "eth1", "eth2"},
			map[string][]string{"bond0": {"eth0", "eth1"}, "bond0.100": {"eth0", "eth1"}},
		},
		"a bond alone, at its members": {Selection{Primary: true}, bonded, []string{"eth0", "eth1"}, map[string][]string{"bond0": {"eth0", "eth1"}}},
		"a bond of which only one member is selected": {
			Selection{Primary: true, Names: []string{"eth0", "eth2"}}, bonded, []string{"eth0", "eth1", "eth2"}, map[string][]string{"bond0": {"eth0", "eth1"}},
		},
		"a bond whose other member is excluded": {
			Selection{Names: everything, Exclude: []string{"eth1"}}, bonded, []string{"eth0", "eth1", "eth2"},
			map[string][]string{"bond0": {"eth0", "eth1"}, "bond0.100": {"eth0", "eth1"}},
		},
		"a member that left the bond, and may come back": {
			Selection{Primary: true, Names: []string{"eth0"}}, withoutMember, []string{"eth0", "eth1"}, map[string][]string{"bond0": {"eth1"}},
		},
		"a bond of which a member has a program of somebody else, at the bond": {
			Selection{Primary: true, Names: []string{"eth1"}}, memberInUse, []string{"bond0"}, map[string][]string{"eth1": {"bond0"}},
		},
		"a bond that has a program of somebody else, at the bond": {
			Selection{Primary: true, Names: []string{"eth1"}}, bondInUse, []string{"bond0"}, map[string][]string{"eth1": {"bond0"}},
		},
		"a team, at its ports":                   {Selection{Names: []string{"team0"}}, teamed, []string{"eth0"}, map[string][]string{"team0": {"eth0"}}},
		"a bond that is excluded":                {Selection{Names: everything, Exclude: []string{"bond*"}}, bonded, []string{"eth0", "eth1", "eth2"}, nil},
		"a VLAN above a bond that is not chosen": {Selection{Names: []string{"bond0.100"}}, bonded, []string{"bond0.100"}, nil},
		"and with a member":                      {Selection{Names: []string{"eth1", "*.100"}}, bonded, []string{"eth1"}, map[string][]string{"bond0.100": {"eth1"}}},
		"a bridge of the default route":          {Selection{Primary: true}, bridged, []string{"br0"}, nil},
		"a bridge and one of its ports, at the port": {
			Selection{Primary: true, Names: []string{"eth*"}}, bridged, []string{"eth0"}, map[string][]string{"br0": {"eth0"}},
		},
		"a bridge at its ports": {Selection{Names: everything}, bridged, []string{"eth0", "vnet0"}, map[string][]string{"br0": {"eth0", "vnet0"}}},
		"a VLAN alone":          {Selection{Primary: true}, tagged, []string{"eth0.100"}, nil},
		"a VLAN and its parent, at the parent": {
			Selection{Names: []string{"eth*"}}, tagged, []string{"eth0"}, map[string][]string{"eth0.100": {"eth0"}},
		},
		"through one that is not selected": {
			Selection{Names: []string{"eth0", "mac0"}}, tagged, []string{"eth0"}, map[string][]string{"mac0": {"eth0"}},
		},
		"all three": {
			Selection{Names: everything}, tagged, []string{"eth0"}, map[string][]string{"eth0.100": {"eth0"}, "mac0": {"eth0"}},
		},
		"a virtual function that brings a part only": {
			Selection{Names: everything}, azure, []string{"eth0"}, map[string][]string{"enP1s1": {"eth0"}},
		},
		"such a one in a bond of which the rest is excluded": {
			Selection{Names: everything, Exclude: []string{"eth1"}}, azureBonded, []string{"eth1", "eth0"},
			map[string][]string{"bond0": {"eth0", "eth1"}, "enP1s1": {"eth0"}},
		},
		"such a one in a bond": {
			Selection{Names: everything}, azureBonded, []string{"eth1", "eth0"},
			map[string][]string{"bond0": {"eth0", "eth1"}, "enP1s1": {"eth0"}},
		},
		"a member of a bond that is in use, upon another interface that is selected, once": {
			Selection{Names: []string{"eth0", "eth0.5", "bond0"}}, vlanInBond, []string{"eth0"},
			map[string][]string{"eth0.5": {"eth0"}, "bond0": {"eth0"}},
		},
		"Open vSwitch's bridge alone": {Selection{Primary: true}, switched, []string{"br-ex"}, nil},
		"Open vSwitch's bridge and its datapath, each for itself": {
			Selection{Names: []string{"ovs-system", "br-ex"}}, switched[:2], []string{"ovs-system", "br-ex"}, nil,
		},
		"an interface beside Open vSwitch": {
			Selection{Names: []string{"eth*"}}, append(switched[:3:3], Interface{Name: "eth1", Index: 6}), []string{"eth0", "eth1"}, nil,
		},
		"Open vSwitch's bridge at the port": {
			Selection{Primary: true, Names: []string{"eth*"}}, switched, []string{"eth0"}, map[string][]string{"br-ex": {"eth0"}},
		},
		"and what is above it": {
			Selection{Names: []string{"eth*", "br-ex.*"}}, switched, []string{"eth0"}, map[string][]string{"br-ex.7": {"eth0"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.selection.Counter, tc.selection.Mode = "c", Auto
			want, _, rejected := Desired([]Selection{tc.selection}, tc.interfaces, nil)
			var counted []string
			for _, w := range want {
				counted = append(counted, w.Name)
			}
			if diff := cmp.Diff(tc.counted, counted); diff != "" {
				t.Errorf("counted (-want +got):\n%s", diff)
			}
			var elsewhere map[string][]string
			for _, d := range rejected {
				if elsewhere == nil {
					elsewhere = map[string][]string{}
				}
				at := slices.IndexFunc(tc.interfaces, func(i Interface) bool { return i.Index == d.Index })
				elsewhere[tc.interfaces[at].Name] = slices.Sorted(slices.Values(d.At))
				if !errors.Is(d.Why, ErrCountedElsewhere) || d.Counter != "c" || d.Wants != Auto {
					t.Errorf("rejected: %+v", d)
				}
			}
			if diff := cmp.Diff(tc.elsewhere, elsewhere); diff != "" {
				t.Errorf("elsewhere (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBondWithoutMembers(t *testing.T) {
	interfaces := []Interface{{Name: "bond0", Index: 2, Kind: "bond"}, {Name: "bond0.5", Index: 3, Kind: "vlan", Parent: 2}}
	want, _, rejected := Desired([]Selection{{Counter: "c", Names: []string{"bond0"}, Mode: Auto}}, interfaces, nil)
	if len(want) != 0 || len(rejected) != 1 || rejected[0].Index != 2 || !errors.Is(rejected[0].Why, ErrNoMembers) {
		t.Errorf("want %v, rejected %v", want, rejected)
	}
	want, _, _ = Desired([]Selection{{Counter: "c", Names: []string{"bond0*"}, Mode: Auto}}, interfaces, nil)
	if len(want) != 1 || want[0].Name != "bond0.5" {
		t.Errorf("with the VLAN above it: %v", want)
	}
}

// A bond whose own hook we share by a dispatcher stays counted there; one at which an older version has attached is detached.
func TestBondWithAnAttachmentOfOurs(t *testing.T) {
	ask := []Selection{{Counter: "c", Primary: true, Mode: Auto, ViaDispatcher: true}}
	for dispatcher, counted := range map[bool][]string{true: {"bond0"}, false: {"eth0", "eth1"}} {
		have := []Attachment{{Index: 4, ViaDispatcher: dispatcher, Program: 9, Map: 1, Pin: "p"}}
		want, _, _ := Desired(ask, bondInUse, have)
		var names []string
		for _, w := range want {
			names = append(names, w.Name)
		}
		if diff := cmp.Diff(counted, names); diff != "" {
			t.Errorf("dispatcher %v (-want +got):\n%s", dispatcher, diff)
		}
	}
}

func TestTheKernelTakesProgramsFromBelow(t *testing.T) {
	a, b := Selection{Counter: "a", Primary: true, Mode: Auto}, Selection{Counter: "b", Names: []string{"eth*"}, Mode: Auto}
	want, selected, rejected := Desired([]Selection{a, b}, bridged, nil)
	if diff := cmp.Diff([]Attachment{{Index: 3, Name: "eth0", Mode: Auto}, {Index: 2, Name: "br0", Mode: Auto}}, want); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[int][]string{2: {"a"}, 3: {"b"}}, selected); diff != "" || rejected != nil {
		t.Errorf("each has its own layer; rejected %v (-want +got):\n%s", rejected, diff)
	}
}

// However interfaces are stacked, something is counted, no two above one another, and what is not is said to be where
// something is.
func FuzzLayers(f *testing.F) {
	f.Add([]byte{0, 0, 3, 1, 0, 3, 0, 0, 1, 2, 3, 1})
	f.Add([]byte{2, 0, 0, 1, 0, 0}) // a loop, as there is none
	kinds := []string{"", "bond", "bridge", openvswitch, "vlan"}
	f.Fuzz(func(t *testing.T, data []byte) {
		var interfaces []Interface
		for n := 0; len(data) >= 3 && n < 12; n++ {
			interfaces = append(interfaces, Interface{
				Name: string(rune('a' + n)), Index: n + 1, Master: int(data[0] % 13), Parent: int(data[1] % 13), Kind: kinds[int(data[2])%len(kinds)],
				Primary: data[2] < 128,
			})
			data = data[3:]
		}
		want, _, rejected := Desired([]Selection{{Counter: "c", Primary: true}}, interfaces, nil)
		s, counted := stackOf(interfaces), map[int]bool{}
		for _, w := range want {
			counted[w.Index] = true
		}
		for _, w := range want {
			if s.any(w.Index, counted) {
				t.Errorf("%s is counted, and what is below it", w.Name)
			}
		}
		for _, d := range rejected {
			if len(d.At) == 0 && !errors.Is(d.Why, ErrNoMembers) {
				t.Errorf("%d is counted nowhere", d.Index)
			}
		}
	})
}

func TestTheTableOfTheDocs(t *testing.T) {
	const document, begin, end = "../../docs/interfaces.md", "<!-- The table is written by go test ./agent/plan -update. -->\n\n", "\n<!-- The end of the table. -->"
	var table strings.Builder
	table.WriteString("| a node with | `interfaces` | counted | skipped |\n|---|---|---|---|\n")
	for _, row := range []struct {
		node       string
		interfaces []Interface
		asked      string
		selection  Selection
	}{
		{"`bond0` of `eth0` and `eth1`, default route on `bond0`", bonded[:3], "left out", Selection{Primary: true}},
		{"the same", bonded[:3], "`names: [\"*\"]`", Selection{Names: everything}},
		{"the same", bonded[:3], "`primary: true, names: [eth0]`", Selection{Primary: true, Names: []string{"eth0"}}},
		{"the same", bonded[:3], "`names: [\"*\"], exclude: [bond0]`", Selection{Names: everything, Exclude: []string{"bond0"}}},
		{"and with VLAN `bond0.100`", bonded[:4], "`names: [\"bond0*\"]`", Selection{Names: []string{"bond0*"}}},
		{"VLAN `eth0.100` and a macvlan upon it, default route on `eth0.100`", tagged, "left out", Selection{Primary: true}},
		{"the same", tagged, "`names: [\"*\"]`", Selection{Names: everything}},
		{"bridge `br0` with ports `eth0` and `vnet0` (a virtual machine), default route on `br0`", bridged, "left out", Selection{Primary: true}},
		{"the same", bridged, "`names: [\"*\"]`", Selection{Names: everything}},
		{"the same", bridged, "`primary: true, names: [\"eth*\"]`", Selection{Primary: true, Names: []string{"eth*"}}},
		{"Open vSwitch's bridge `br-ex` with port `eth0`, default route on `br-ex`", switched[:3], "left out", Selection{Primary: true}},
		{"the same", switched[:3], "`names: [eth0, br-ex]`", Selection{Names: []string{"eth0", "br-ex"}}},
		{"Azure's `eth0` with its virtual function `enP1s1`", azure, "`names: [\"e*\"]`", Selection{Names: []string{"e*"}}},
		{"`eth0`, and VXLAN `vx0` made upon it", overlaid, "`names: [\"*\"]`", Selection{Names: everything}},
		{"the same", overlaid, "`names: [\"*\", vx0]`", Selection{Names: []string{"*", "vx0"}}},
	} {
		row.selection.Counter, row.selection.Mode = "c", Auto
		want, _, rejected := Desired([]Selection{row.selection}, row.interfaces, nil)
		var counted, skipped []string
		for _, i := range row.interfaces {
			if slices.ContainsFunc(want, func(w Attachment) bool { return w.Index == i.Index }) {
				counted = append(counted, "`"+i.Name+"`")
			}
			if slices.ContainsFunc(rejected, func(d Rejected) bool { return d.Index == i.Index }) {
				skipped = append(skipped, "`"+i.Name+"`")
			}
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", row.node, row.asked, strings.Join(counted, ", "), strings.Join(skipped, ", "))
	}
	golden.CheckPart(t, document, begin, end, table.String())
}
