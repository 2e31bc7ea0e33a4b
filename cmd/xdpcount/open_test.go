// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"slices"
	"testing"

	"github.com/xdp-operator/xdp-operator/agent/plan"
)

func TestResolve(t *testing.T) {
	program := plan.Hook{Program: 9, Mode: plan.Native}
	interfaces := []plan.Interface{
		{Name: "eth0", Index: 2, Master: 4, AltNames: []string{"enp1s0"}}, {Name: "eth1", Index: 3, Master: 4}, {Name: "bond0", Index: 4, Kind: "bond"},
		{Name: "bond1", Index: 5, Kind: "bond"}, {Name: "eth2", Index: 6, Master: 7, Hook: program}, {Name: "bond2", Index: 7, Kind: "bond"},
	}
	for name, tc := range map[string]struct {
		names, want []string
		have        []plan.Attachment
		err         error
	}{
		"an interface":                            {names: []string{"eth1"}, want: []string{"eth1"}},
		"an alternative name":                     {names: []string{"enp1s0"}, want: []string{"eth0"}},
		"a bond at its members":                   {names: []string{"bond0"}, want: []string{"eth0", "eth1"}},
		"a bond and one of its members":           {names: []string{"eth1", "bond0"}, want: []string{"eth1", "eth0"}},
		"a bond without members":                  {names: []string{"bond1"}, err: plan.ErrNoMembers},
		"a bond whose member is in use":           {names: []string{"bond2"}, want: []string{"bond2"}},
		"a bond whose member has the agent's":     {names: []string{"bond2"}, want: []string{"eth2"}, have: []plan.Attachment{{Index: 6, Program: 9}}},
		"one interface by two names":              {names: []string{"eth0", "enp1s0"}, err: errUsage},
		"an interface that does not exist, first": {names: []string{"eth9", "eth1"}, err: errNoInterface},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := resolve(tc.names, interfaces, tc.have)
			if !errors.Is(err, tc.err) || tc.err == nil && !slices.Equal(namesOf(got), tc.want) {
				t.Errorf("got %v, %v; want %v, %v", namesOf(got), err, tc.want, tc.err)
			}
		})
	}
}
