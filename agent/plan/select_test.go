// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestWhichInterfacesACounterSelects(t *testing.T) {
	primary := Interface{Name: "ens5", Index: 2, Primary: true}
	alternative := Interface{Name: "eth0", AltNames: []string{"enp0s3", "enx0a1b2c3d4e5f"}}
	away := Interface{Name: "3f2a1b0c9d8e7f6", Kind: "veth", PeerAway: true}
	for name, tc := range map[string]struct {
		selection Selection
		i         Interface
		want      bool
	}{
		"the interface of the default route is primary": {Selection{Primary: true}, primary, true},
		"another is not":                                              {Selection{Primary: true}, Interface{Name: "ens6"}, false},
		"an exact name":                                               {Selection{Names: []string{"ens6"}}, Interface{Name: "ens6"}, true},
		"a name is not a prefix":                                      {Selection{Names: []string{"ens"}}, Interface{Name: "ens6"}, false},
		"a star":                                                      {Selection{Names: []string{"ens*"}}, Interface{Name: "ens6"}, true},
		"a question mark is one character":                            {Selection{Names: []string{"ens?"}}, Interface{Name: "ens16"}, false},
		"a set":                                                       {Selection{Names: []string{"en[op]*"}}, Interface{Name: "enp3s0"}, true},
		"a negated set as in a shell":                                 {Selection{Names: []string{"eth[!0]"}}, Interface{Name: "eth0"}, false},
		"a negated set lets others through":                           {Selection{Names: []string{"eth[!0]"}}, Interface{Name: "eth1"}, true},
		"names and primary are a union":                               {Selection{Primary: true, Names: []string{"eth0"}}, primary, true},
		"exclude wins over primary":                                   {Selection{Primary: true, Exclude: []string{"ens*"}}, primary, false},
		"exclude wins over names":                                     {Selection{Names: []string{"ens*"}, Exclude: []string{"ens6"}}, Interface{Name: "ens6"}, false},
		"a VLAN's dot is a character":                                 {Selection{Names: []string{"eth0.*"}}, Interface{Name: "eth0.100"}, true},
		"15 bytes":                                                    {Selection{Names: []string{"abcdefghijklmn?"}}, Interface{Name: "abcdefghijklmno"}, true},
		"a name that is not ASCII":                                    {Selection{Names: []string{"näs*"}}, Interface{Name: "näs0"}, true},
		"a colon":                                                     {Selection{Names: []string{"ibr10:*"}}, Interface{Name: "ibr10:30"}, true},
		"a malformed pattern matches nothing":                         {Selection{Names: []string{"eth["}}, Interface{Name: "eth["}, false},
		"the loopback interface by its exact name":                    {Selection{Names: []string{"lo"}}, Interface{Name: "lo"}, true},
		"a star does not mean the loopback interface":                 {Selection{Names: []string{"*"}}, Interface{Name: "lo"}, false},
		"nor does l?":                                                 {Selection{Names: []string{"l?"}}, Interface{Name: "lo"}, false},
		"a star does not mean a pod's end":                            {Selection{Names: []string{"*"}}, Interface{Name: "veth1a2b"}, false},
		"nor does its first letter":                                   {Selection{Names: []string{"c*"}}, Interface{Name: "cali1a2b"}, false},
		"a pod's end by a pattern that names it":                      {Selection{Names: []string{"cali*"}}, Interface{Name: "cali1a2b"}, true},
		"a pod's end by its exact name":                               {Selection{Names: []string{"veth1a2b"}}, Interface{Name: "veth1a2b"}, true},
		"a star means what only looks like a pod's end inside":        {Selection{Names: []string{"*"}}, Interface{Name: "myveth0"}, true},
		"a primary interface may be called like a pod's end":          {Selection{Primary: true}, Interface{Name: "eni0", Primary: true}, true},
		"an alternative name in full":                                 {Selection{Names: []string{"enp0s3"}}, alternative, true},
		"and to exclude it":                                           {Selection{Names: []string{"eth*"}, Exclude: []string{"enx0a1b2c3d4e5f"}}, alternative, false},
		"a glob does not mean alternative names":                      {Selection{Names: []string{"en*"}}, alternative, false},
		"a star does not mean Docker's bridge":                        {Selection{Names: []string{"*"}}, Interface{Name: "docker0", Kind: "bridge"}, false},
		"nor kube-proxy's dummy":                                      {Selection{Names: []string{"[a-z]*"}}, Interface{Name: "kube-ipvs0", Kind: "dummy"}, false},
		"a star does not mean the end of a pair of another namespace": {Selection{Names: []string{"*"}}, away, false},
		"but a pattern that begins with a letter does":                {Selection{Names: []string{"3*"}}, away, true},
		"and a star does if it is primary, as in kind":                {Selection{Names: []string{"*"}}, Interface{Name: "eth0", Kind: "veth", PeerAway: true, Primary: true}, true},
		"a star does not mean a tunnel":                               {Selection{Names: []string{"*"}}, Interface{Name: "vx0", Kind: "vxlan"}, false},
		"even where the default route leads into it":                  {Selection{Names: []string{"*"}}, Interface{Name: "wg0", NoEthernet: true, Primary: true}, false},
		"a tunnel by the letters that it begins with":                 {Selection{Names: []string{"vx*"}}, Interface{Name: "vx0", Kind: "vxlan"}, true},
		"a star does not mean kubenet's bridge":                       {Selection{Names: []string{"*"}}, Interface{Name: "cbr0", Kind: "bridge"}, false},
		"nor that of a Docker network":                                {Selection{Names: []string{"*"}}, Interface{Name: "br-0a1b2c3d4e5f", Kind: "bridge"}, false},
		"nor does its first letter mean it":                           {Selection{Names: []string{"b*"}}, Interface{Name: "br-0a1b2c3d4e5f", Kind: "bridge"}, false},
		"it is selected by a pattern that begins with br-":            {Selection{Names: []string{"br-*"}}, Interface{Name: "br-0a1b2c3d4e5f", Kind: "bridge"}, true},
		"and by its name":                                             {Selection{Names: []string{"br-0a1b2c3d4e5f"}}, Interface{Name: "br-0a1b2c3d4e5f", Kind: "bridge"}, true},
		"and if it is primary":                                        {Selection{Names: []string{"*"}}, Interface{Name: "br-0a1b2c3d4e5f", Kind: "bridge", Primary: true}, true},
		"a star means the bridge of OVN-Kubernetes":                   {Selection{Names: []string{"*"}}, Interface{Name: "br-ex", Kind: "openvswitch"}, true},
		"and that of OpenWrt":                                         {Selection{Names: []string{"*"}}, Interface{Name: "br-lan", Kind: "bridge"}, true},
		"and a bridge with other letters than an ID has":              {Selection{Names: []string{"*"}}, Interface{Name: "br-storage-net0", Kind: "bridge"}, true},
		"and a bridge with fewer digits than an ID has":               {Selection{Names: []string{"*"}}, Interface{Name: "br-0a1b2c3d", Kind: "bridge"}, true},
		"an empty selection selects nothing":                          {Selection{}, primary, false},
	} {
		if got := tc.selection.Matches(tc.i); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestAStarDoesNotMeanBridgesOfContainersAndMachines(t *testing.T) {
	for _, name := range []string{
		"cbr0", "weave", "podman0", "podman1", "cni-podman0", "nerdctl0", "buildkit0", "virbr0", "virbr0-nic", "lxdbr0", "lxcbr0", "incusbr0",
		"antrea-gw0", "antrea-tun0", "kube-bridge", "kube-dummy-if", "docker_gwbridge",
	} {
		i := Interface{Name: name}
		if (Selection{Names: []string{"*", "[a-z]*"}}).Matches(i) {
			t.Errorf("a star means %s", name)
		}
		for _, pattern := range []string{name, name + "*"} {
			if !(Selection{Names: []string{pattern}}).Matches(i) {
				t.Errorf("%s does not mean %s", pattern, name)
			}
		}
		i.Primary = true
		if !(Selection{Primary: true}).Matches(i) {
			t.Errorf("%s is not selected as primary interface", name)
		}
	}
}

func TestTheDocumentsNameEveryPrefix(t *testing.T) {
	for file, begin := range map[string]string{"../../docs/interfaces.md": "| names that begin with ", "../../docs/api.md": "whose names begin with "} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, list, _ := strings.Cut(strings.ReplaceAll(string(text), `\_`, "_"), begin)
		list, _, _ = strings.Cut(list, "\n")
		for _, prefix := range podEnds {
			if !strings.Contains(list, prefix) {
				t.Errorf("%s does not name %s", file, prefix)
			}
		}
	}
}

func TestSelectionsThatDependOnThePrimaryInterfaces(t *testing.T) {
	for name, tc := range map[string]struct {
		selection Selection
		want      bool
	}{
		"primary":          {Selection{Primary: true}, true},
		"a star":           {Selection{Names: []string{"*"}}, true},
		"a set":            {Selection{Names: []string{"eth0", "en[op]0"}}, true},
		"names in full":    {Selection{Names: []string{"eth0", "lo"}}, false},
		"only an exclude":  {Selection{Names: []string{"eth0"}, Exclude: []string{"*"}}, false},
		"nothing selected": {Selection{}, false},
	} {
		if got := tc.selection.UsesPrimary(); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestWhatShallBeAttachedAndForWhom(t *testing.T) {
	interfaces := []Interface{
		{Name: "lo", Index: 1}, {Name: "eth1", Index: 3}, {Name: "eth0", Index: 2, Primary: true},
		{Name: "gen0", Index: 4, Hook: Hook{40, Generic}}, {Name: "wg0", Index: 5, NoEthernet: true},
		{Name: "pod0", Index: 6, Driver: "veth"},
	}
	type result struct {
		Want     []Attachment
		Selected map[int][]string
		Rejected []Rejected
	}
	for name, tc := range map[string]struct {
		selections []Selection
		have       []Attachment
		want       result
	}{
		"nothing asked, nothing attached": {want: result{Selected: map[int][]string{}}},
		"two counters share one attachment": {
			selections: []Selection{{Counter: "a", Primary: true, Mode: Auto}, {Counter: "b", Names: []string{"eth*"}, Mode: Auto}},
			want: result{
				Want:     []Attachment{{Index: 2, Name: "eth0", Mode: Auto}, {Index: 3, Name: "eth1", Mode: Auto}},
				Selected: map[int][]string{2: {"a", "b"}, 3: {"b"}},
			},
		},
		"the older mode wins, the younger is in conflict and not counted": {
			selections: []Selection{{Counter: "a", Primary: true, Mode: Native}, {Counter: "b", Names: []string{"eth*"}, Mode: Generic}},
			want: result{
				Want:     []Attachment{{Index: 2, Name: "eth0", Mode: Native}, {Index: 3, Name: "eth1", Mode: Generic}},
				Selected: map[int][]string{2: {"a"}, 3: {"b"}},
				Rejected: []Rejected{{Index: 2, Counter: "b", Wants: Generic, Why: ErrModeConflict, Has: Native}},
			},
		},
		"Auto agrees with any older mode": {
			selections: []Selection{{Counter: "a", Primary: true, Mode: Generic}, {Counter: "b", Primary: true, Mode: Auto}},
			want: result{
				Want:     []Attachment{{Index: 2, Name: "eth0", Mode: Generic}},
				Selected: map[int][]string{2: {"a", "b"}},
			},
		},
		"a younger Native is told that Auto has got generic mode": {
			selections: []Selection{{Counter: "a", Names: []string{"gen0"}, Mode: Auto}, {Counter: "b", Names: []string{"gen0"}, Mode: Native}},
			have:       []Attachment{{Index: 4, Program: 40}},
			want: result{
				Want:     []Attachment{{Index: 4, Name: "gen0", Mode: Auto}},
				Selected: map[int][]string{4: {"a"}},
				Rejected: []Rejected{{Index: 4, Counter: "b", Wants: Native, Why: ErrModeConflict, Has: Generic}},
			},
		},
		"what another's program has got says nothing": {
			selections: []Selection{{Counter: "a", Names: []string{"gen0"}, Mode: Auto}, {Counter: "b", Names: []string{"gen0"}, Mode: Native}},
			want: result{
				Want:     []Attachment{{Index: 4, Name: "gen0", Mode: Auto}},
				Selected: map[int][]string{4: {"a", "b"}},
			},
		},
		"a younger Generic agrees with an Auto that has got it": {
			selections: []Selection{{Counter: "a", Names: []string{"gen0"}, Mode: Auto}, {Counter: "b", Names: []string{"gen0"}, Mode: Generic}},
			have:       []Attachment{{Index: 4, Program: 40}},
			want: result{
				Want:     []Attachment{{Index: 4, Name: "gen0", Mode: Auto}},
				Selected: map[int][]string{4: {"a", "b"}},
			},
		},
		"on a veth Auto tries generic mode first, with which a younger Generic agrees, and a younger Native does not": {
			selections: []Selection{
				{Counter: "a", Names: []string{"pod0"}, Mode: Auto}, {Counter: "b", Names: []string{"pod0"}, Mode: Generic}, {Counter: "c", Names: []string{"pod0"}, Mode: Native},
			},
			want: result{
				Want:     []Attachment{{Index: 6, Name: "pod0", Mode: Auto, First: Generic}},
				Selected: map[int][]string{6: {"a", "b"}},
				Rejected: []Rejected{{Index: 6, Counter: "c", Wants: Native, Why: ErrModeConflict, Has: Auto}},
			},
		},
		"on a veth Native is an order": {
			selections: []Selection{{Counter: "a", Names: []string{"pod0"}, Mode: Native}},
			want:       result{Want: []Attachment{{Index: 6, Name: "pod0", Mode: Native}}, Selected: map[int][]string{6: {"a"}}},
		},
		"a dispatcher calls programs for native mode, also on a veth": {
			selections: []Selection{{Counter: "a", Names: []string{"pod0"}, Mode: Auto, ViaDispatcher: true}},
			want:       result{Want: []Attachment{{Index: 6, Name: "pod0", Mode: Auto, ViaDispatcher: true}}, Selected: map[int][]string{6: {"a"}}},
		},
		"what has no Ethernet header is rejected": {
			selections: []Selection{{Counter: "a", Names: []string{"eth1", "wg*"}, Mode: Auto}},
			want: result{
				Want:     []Attachment{{Index: 3, Name: "eth1", Mode: Auto}},
				Selected: map[int][]string{3: {"a"}},
				Rejected: []Rejected{{Index: 5, Counter: "a", Wants: Auto, Why: ErrNoEthernet}},
			},
		},
		"a younger Generic does not slow down an older Auto": {
			selections: []Selection{{Counter: "a", Primary: true, Mode: Auto}, {Counter: "b", Primary: true, Mode: Generic}},
			want: result{
				Want:     []Attachment{{Index: 2, Name: "eth0", Mode: Auto}},
				Selected: map[int][]string{2: {"a"}},
				Rejected: []Rejected{{Index: 2, Counter: "b", Wants: Generic, Why: ErrModeConflict, Has: Auto}},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got result
			got.Want, got.Selected, got.Rejected = Desired(tc.selections, interfaces, tc.have)
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateErrors()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func FuzzGlobsNeverPanic(f *testing.F) {
	for _, pattern := range []string{"*", "eth[!0]", "[", "[a-", `\`, "lo", "[!"} {
		f.Add(pattern, "eth0")
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if (Selection{Names: []string{pattern}, Exclude: []string{pattern}}).Matches(Interface{Name: name}) {
			t.Errorf("pattern %q both names and excludes %q", pattern, name)
		}
	})
}
