// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestLive(t *testing.T) {
	i := Interface{Name: "eth0", Index: 2, Hook: Hook{Program: 7, Mode: Native}}
	gone := Interface{} // of an index that is not in use
	for name, tc := range map[string]struct {
		a    Attachment
		i    Interface
		want bool
	}{
		"its program is on the interface":               {Attachment{Index: 2, Program: 7}, i, true},
		"another program is on the interface":           {Attachment{Index: 2, Program: 8}, i, false},
		"another interface":                             {Attachment{Index: 3, Program: 7}, i, false},
		"the interface is gone, and so is the program":  {Attachment{}, gone, false},
		"the interface is gone, the program is not":     {Attachment{Program: 7}, Interface{Hook: i.Hook}, false},
		"it has no program, and nothing is on the hook": {Attachment{Index: 2}, Interface{Index: 2}, false},
		"shared: any program is on the interface":       {Attachment{Index: 2, Program: 9, ViaDispatcher: true}, i, true},
		"shared: nothing is on the hook":                {Attachment{Index: 2, Program: 9, ViaDispatcher: true}, Interface{Index: 2}, false},
		"shared: another interface":                     {Attachment{Index: 3, Program: 7, ViaDispatcher: true}, i, false},
		"shared: the interface is gone":                 {Attachment{ViaDispatcher: true}, Interface{Hook: i.Hook}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := tc.a.Live(tc.i); got != tc.want {
				t.Errorf("Live is %v", got)
			}
		})
	}
}

func TestOneAttachmentThatGoesDoesNotHideTheNext(t *testing.T) {
	interfaces := []Interface{{Name: "eth0", Index: 2, Hook: Hook{Program: 7, Mode: Native}}, {Name: "eth1", Index: 3, Hook: Hook{Program: 8, Mode: Native}}}
	first, second := Attachment{Index: 2, Program: 7, Pin: "2"}, Attachment{Index: 3, Program: 8, Pin: "3"}
	attach, detach := Diff([]Attachment{first, second}, []Attachment{{Index: 3, Name: "eth1", Mode: Auto}}, interfaces)
	if len(attach) != 0 || len(detach) != 1 || detach[0].Pin != "2" {
		t.Errorf("attach %v, detach %v", attach, detach)
	}
}

func TestWhatChangesAnAttachment(t *testing.T) {
	eth0 := Interface{Name: "eth0", Index: 2, Hook: Hook{Program: 7, Mode: Native}}
	ours := Attachment{Index: 2, Program: 7, Map: 70, Pin: "2"}
	wish := func(mode Mode) []Attachment { return []Attachment{{Index: 2, Name: "eth0", Mode: mode}} }
	cheaper := []Attachment{{Index: 2, Name: "eth0", Mode: Auto, First: Generic}}
	changed := func(a Attachment, change func(*Attachment)) Attachment { change(&a); return a }
	with := func(hook Hook) Interface { i := eth0; i.Hook = hook; return i }
	refused := changed(ours, func(a *Attachment) { a.Refused = ErrMTUTooLarge })
	improved := changed(refused, func(a *Attachment) { a.Improved = true })

	for name, tc := range map[string]struct {
		have       []Attachment
		want       []Attachment
		i          Interface
		attach     []Attachment
		detach     []Attachment
		interfaces []Interface // instead of i
	}{
		"what is as wanted is left alone":  {have: []Attachment{ours}, want: wish(Auto), i: eth0},
		"native meets the wish for native": {have: []Attachment{ours}, want: wish(Native), i: eth0},
		"generic meets the wish for Auto where native was refused": {
			have: []Attachment{refused}, want: wish(Auto), i: with(Hook{7, Generic}),
		},
		"what stood in native's way has changed: it goes, and native is tried in the next pass": {
			have: []Attachment{improved}, want: wish(Auto), i: with(Hook{7, Generic}), detach: []Attachment{improved},
		},
		"generic was asked for and Auto is now: native was never tried": {
			have: []Attachment{ours}, want: wish(Auto), i: with(Hook{7, Generic}), detach: []Attachment{ours},
		},
		"generic was asked for and Auto is now, which would choose it": {have: []Attachment{ours}, want: cheaper, i: with(Hook{7, Generic})},
		"generic was taken because native was refused, and would be chosen now": {
			have: []Attachment{improved}, want: cheaper, i: with(Hook{7, Generic}),
		},
		"native stays where Auto would choose generic now, as after an upgrade": {have: []Attachment{ours}, want: cheaper, i: eth0},
		"generic is asked for now, which it is: what would help native is no matter": {
			have: []Attachment{improved}, want: wish(Generic), i: with(Hook{7, Generic}),
		},
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
		"a shared hook as wanted is left alone if another process has replaced the dispatcher": {
			have: []Attachment{changed(ours, func(a *Attachment) { a.ViaDispatcher = true })}, want: []Attachment{{Index: 2, Name: "eth0", Mode: Auto, ViaDispatcher: true}}, i: with(Hook{8, Native}),
		},
		"a shared hook that is free by now": {
			have: []Attachment{changed(ours, func(a *Attachment) { a.ViaDispatcher = true })}, want: []Attachment{{Index: 2, Name: "eth0", Mode: Auto, ViaDispatcher: true}}, i: with(Hook{}),
			detach: []Attachment{changed(ours, func(a *Attachment) { a.ViaDispatcher = true })},
		},
		"shared instead of exclusive: it goes, and comes in the next pass": {
			have: []Attachment{ours}, want: []Attachment{{Index: 2, Name: "eth0", Mode: Auto, ViaDispatcher: true}}, i: eth0, detach: []Attachment{ours},
		},
		"exclusive instead of shared": {
			have: []Attachment{changed(ours, func(a *Attachment) { a.ViaDispatcher = true })}, want: wish(Auto), i: eth0,
			detach: []Attachment{changed(ours, func(a *Attachment) { a.ViaDispatcher = true })},
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
			if diff := cmp.Diff(tc.attach, attach, cmpopts.EquateErrors()); diff != "" {
				t.Errorf("attach (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.detach, detach, cmpopts.EquateErrors()); diff != "" {
				t.Errorf("detach (-want +got):\n%s", diff)
			}
		})
	}
}
