package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhichInterfacesACounterSelects(t *testing.T) {
	primary := Interface{Name: "ens5", Index: 2, Primary: true}
	for name, tc := range map[string]struct {
		selection Selection
		i         Interface
		want      bool
	}{
		"the interface of the default route is primary": {Selection{Primary: true}, primary, true},
		"another is not":                                       {Selection{Primary: true}, Interface{Name: "ens6"}, false},
		"an exact name":                                        {Selection{Names: []string{"ens6"}}, Interface{Name: "ens6"}, true},
		"a name is not a prefix":                               {Selection{Names: []string{"ens"}}, Interface{Name: "ens6"}, false},
		"a star":                                               {Selection{Names: []string{"ens*"}}, Interface{Name: "ens6"}, true},
		"a question mark is one character":                     {Selection{Names: []string{"ens?"}}, Interface{Name: "ens16"}, false},
		"a set":                                                {Selection{Names: []string{"en[op]*"}}, Interface{Name: "enp3s0"}, true},
		"a negated set as in a shell":                          {Selection{Names: []string{"eth[!0]"}}, Interface{Name: "eth0"}, false},
		"a negated set lets others through":                    {Selection{Names: []string{"eth[!0]"}}, Interface{Name: "eth1"}, true},
		"names and primary are a union":                        {Selection{Primary: true, Names: []string{"eth0"}}, primary, true},
		"exclude wins over primary":                            {Selection{Primary: true, Exclude: []string{"ens*"}}, primary, false},
		"exclude wins over names":                              {Selection{Names: []string{"ens*"}, Exclude: []string{"ens6"}}, Interface{Name: "ens6"}, false},
		"a VLAN's dot is a character":                          {Selection{Names: []string{"eth0.*"}}, Interface{Name: "eth0.100"}, true},
		"15 bytes":                                             {Selection{Names: []string{"abcdefghijklmn?"}}, Interface{Name: "abcdefghijklmno"}, true},
		"a name that is not ASCII":                             {Selection{Names: []string{"näs*"}}, Interface{Name: "näs0"}, true},
		"a colon":                                              {Selection{Names: []string{"ibr10:*"}}, Interface{Name: "ibr10:30"}, true},
		"a malformed pattern matches nothing":                  {Selection{Names: []string{"eth["}}, Interface{Name: "eth["}, false},
		"the loopback interface by its exact name":             {Selection{Names: []string{"lo"}}, Interface{Name: "lo"}, true},
		"a star does not mean the loopback interface":          {Selection{Names: []string{"*"}}, Interface{Name: "lo"}, false},
		"nor does l?":                                          {Selection{Names: []string{"l?"}}, Interface{Name: "lo"}, false},
		"a star does not mean a pod's end":                     {Selection{Names: []string{"*"}}, Interface{Name: "veth1a2b"}, false},
		"nor does its first letter":                            {Selection{Names: []string{"c*"}}, Interface{Name: "cali1a2b"}, false},
		"a pod's end by a pattern that names it":               {Selection{Names: []string{"cali*"}}, Interface{Name: "cali1a2b"}, true},
		"a pod's end by its exact name":                        {Selection{Names: []string{"veth1a2b"}}, Interface{Name: "veth1a2b"}, true},
		"a star means what only looks like a pod's end inside": {Selection{Names: []string{"*"}}, Interface{Name: "myveth0"}, true},
		"a primary interface may be called like a pod's end":   {Selection{Primary: true}, Interface{Name: "eni0", Primary: true}, true},
		"an empty selection selects nothing":                   {Selection{}, primary, false},
	} {
		if got := tc.selection.Matches(tc.i); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func TestWhatShallBeAttachedAndForWhom(t *testing.T) {
	interfaces := []Interface{{Name: "lo", Index: 1}, {Name: "eth1", Index: 3}, {Name: "eth0", Index: 2, Primary: true}}
	type result struct {
		Want      []Attachment
		Selected  map[int][]string
		Conflicts []Conflict
	}
	for name, tc := range map[string]struct {
		selections []Selection
		want       result
	}{
		"nothing asked, nothing attached": {want: result{Selected: map[int][]string{}}},
		"two counters share one attachment": {
			[]Selection{{Counter: "a", Primary: true, Mode: Auto}, {Counter: "b", Names: []string{"eth*"}, Mode: Auto}},
			result{
				Want:     []Attachment{{Index: 2, Name: "eth0", Mode: Auto}, {Index: 3, Name: "eth1", Mode: Auto}},
				Selected: map[int][]string{2: {"a", "b"}, 3: {"b"}},
			},
		},
		"the older mode wins, the younger is in conflict and not counted": {
			[]Selection{{Counter: "a", Primary: true, Mode: Native}, {Counter: "b", Names: []string{"eth*"}, Mode: Generic}},
			result{
				Want:      []Attachment{{Index: 2, Name: "eth0", Mode: Native}, {Index: 3, Name: "eth1", Mode: Generic}},
				Selected:  map[int][]string{2: {"a"}, 3: {"b"}},
				Conflicts: []Conflict{{Index: 2, Counter: "b", Wants: Generic, Has: Native}},
			},
		},
		"the oldest says whether the hook is shared": {
			[]Selection{{Counter: "a", Primary: true, Mode: Auto, Shared: true}, {Counter: "b", Names: []string{"eth*"}, Mode: Auto}},
			result{
				Want:     []Attachment{{Index: 2, Name: "eth0", Mode: Auto, Shared: true}, {Index: 3, Name: "eth1", Mode: Auto}},
				Selected: map[int][]string{2: {"a", "b"}, 3: {"b"}},
			},
		},
		"Auto agrees with any older mode": {
			[]Selection{{Counter: "a", Primary: true, Mode: Generic}, {Counter: "b", Primary: true, Mode: Auto}},
			result{
				Want:     []Attachment{{Index: 2, Name: "eth0", Mode: Generic}},
				Selected: map[int][]string{2: {"a", "b"}},
			},
		},
		"a younger Generic does not slow down an older Auto": {
			[]Selection{{Counter: "a", Primary: true, Mode: Auto}, {Counter: "b", Primary: true, Mode: Generic}},
			result{
				Want:      []Attachment{{Index: 2, Name: "eth0", Mode: Auto}},
				Selected:  map[int][]string{2: {"a"}},
				Conflicts: []Conflict{{Index: 2, Counter: "b", Wants: Generic, Has: Auto}},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got result
			got.Want, got.Selected, got.Conflicts = Desired(tc.selections, interfaces)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestWhatChangesAnAttachment(t *testing.T) {
	eth0 := Interface{Name: "eth0", Index: 2, Hook: Hook{Program: 7, Mode: Native}}
	ours := Attachment{Index: 2, Program: 7, Map: 70, Pin: "2"}
	wish := func(mode Mode) []Attachment { return []Attachment{{Index: 2, Name: "eth0", Mode: mode}} }
	changed := func(a Attachment, change func(*Attachment)) Attachment { change(&a); return a }
	with := func(hook Hook) Interface { i := eth0; i.Hook = hook; return i }

	for name, tc := range map[string]struct {
		have       []Attachment
		want       []Attachment
		i          Interface
		attach     []Attachment
		detach     []Attachment
		interfaces []Interface // instead of i
	}{
		"what is as wanted is left alone":                   {have: []Attachment{ours}, want: wish(Auto), i: eth0},
		"native meets the wish for native":                  {have: []Attachment{ours}, want: wish(Native), i: eth0},
		"generic meets the wish for Auto":                   {have: []Attachment{ours}, want: wish(Auto), i: with(Hook{7, Generic})},
		"what is missing is attached":                       {want: wish(Auto), i: with(Hook{}), attach: wish(Auto)},
		"what is not wanted goes":                           {have: []Attachment{ours}, i: eth0, detach: []Attachment{ours}},
		"another mode: it goes, and comes in the next pass": {have: []Attachment{ours}, want: wish(Generic), i: eth0, detach: []Attachment{ours}},
		"another program is in its place: its counts are given up first": {
			have: []Attachment{ours}, want: wish(Auto), i: with(Hook{8, Native}), detach: []Attachment{ours},
		},
		"the link was cut by hand": {have: []Attachment{ours}, want: wish(Auto), i: with(Hook{}), detach: []Attachment{ours}},
		"an interface that is gone": {
			have: []Attachment{changed(ours, func(a *Attachment) { a.Index = 0 })}, interfaces: []Interface{},
			detach: []Attachment{changed(ours, func(a *Attachment) { a.Index = 0 })},
		},
		"its index is taken by another interface": {
			have: []Attachment{changed(ours, func(a *Attachment) { a.Index = 0 })}, want: wish(Auto), i: with(Hook{}),
			attach: wish(Auto), detach: []Attachment{changed(ours, func(a *Attachment) { a.Index = 0 })},
		},
		"a shared hook as wanted is left alone, whoever has exchanged the dispatcher meanwhile": {
			have: []Attachment{changed(ours, func(a *Attachment) { a.Shared = true })}, want: []Attachment{{Index: 2, Name: "eth0", Mode: Auto, Shared: true}}, i: with(Hook{8, Native}),
		},
		"a shared hook that is free by now": {
			have: []Attachment{changed(ours, func(a *Attachment) { a.Shared = true })}, want: []Attachment{{Index: 2, Name: "eth0", Mode: Auto, Shared: true}}, i: with(Hook{}),
			detach: []Attachment{changed(ours, func(a *Attachment) { a.Shared = true })},
		},
		"shared instead of exclusive: it goes, and comes in the next pass": {
			have: []Attachment{ours}, want: []Attachment{{Index: 2, Name: "eth0", Mode: Auto, Shared: true}}, i: eth0, detach: []Attachment{ours},
		},
		"exclusive instead of shared": {
			have: []Attachment{changed(ours, func(a *Attachment) { a.Shared = true })}, want: wish(Auto), i: eth0,
			detach: []Attachment{changed(ours, func(a *Attachment) { a.Shared = true })},
		},
		"an outdated program is brought up to date": {
			have: []Attachment{changed(ours, func(a *Attachment) { a.Outdated = true })}, want: wish(Auto), i: eth0, attach: wish(Auto),
		},
	} {
		t.Run(name, func(t *testing.T) {
			interfaces := tc.interfaces
			if interfaces == nil {
				interfaces = []Interface{tc.i}
			}
			attach, detach := Diff(tc.have, tc.want, interfaces)
			if diff := cmp.Diff(tc.attach, attach); diff != "" {
				t.Errorf("attach (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.detach, detach); diff != "" {
				t.Errorf("detach (-want +got):\n%s", diff)
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
