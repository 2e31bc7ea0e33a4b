// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"strings"
	"testing"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// counter returns a counter with the packets of TCP, of UDP, of the family IPv4 and in all.
func counter(tcp, udp, family, total int64) *v1alpha1.XDPCounter {
	x := &v1alpha1.XDPCounter{}
	x.UID = "a"
	var totals traffic.Totals
	totals[traffic.IP(traffic.IPv4, 6)].Packets = uint64(tcp)
	totals[traffic.IP(traffic.IPv4, 17)].Packets = uint64(udp)
	x.Status.Protocols = v1alpha1.ProtocolsOf(totals, traffic.Rates{})
	x.Status.Families = []v1alpha1.FamilyCounts{{Family: "IPv4", Packets: family}}
	x.Status.Total = &v1alpha1.Total{Packets: total}
	return x
}

func TestVersionsOfACounter(t *testing.T) {
	for name, c := range map[string]struct {
		versions []*v1alpha1.XDPCounter
		want     string // of the last
	}{
		"a new one":                    {[]*v1alpha1.XDPCounter{{}}, ""},
		"it grows":                     {[]*v1alpha1.XDPCounter{counter(1, 2, 3, 3), counter(1, 3, 4, 4)}, ""},
		"the total is not the sum":     {[]*v1alpha1.XDPCounter{counter(1, 2, 3, 4)}, "the protocols sum up to [3 0], the families to [3 0], the total is [4 0]"},
		"a family is missing":          {[]*v1alpha1.XDPCounter{counter(1, 2, 0, 3)}, "the families to [0 0]"},
		"a class falls, the sum not":   {[]*v1alpha1.XDPCounter{counter(5, 0, 5, 5), counter(4, 2, 6, 6)}, "fell from"},
		"it is below what it was once": {[]*v1alpha1.XDPCounter{counter(5, 0, 5, 5), counter(3, 0, 3, 3), counter(4, 0, 4, 4)}, "fell from"},
	} {
		t.Run(name, func(t *testing.T) {
			highest := Highest{}
			var err error
			for _, x := range c.versions {
				err = highest.CheckCounter(x)
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestVersionsOfANodeState(t *testing.T) {
	account := func(packets int64) *v1alpha1.XDPNodeState {
		s := &v1alpha1.XDPNodeState{}
		var totals traffic.Totals
		totals[traffic.ClassARP].Packets = uint64(packets)
		s.Status.Accounts = []v1alpha1.CounterAccount{{UID: "a", Counts: v1alpha1.CountsOf(totals)}}
		return s
	}
	highest := Highest{}
	if err := highest.CheckNodeState(account(5)); err != nil {
		t.Error(err)
	}
	if err := highest.CheckNodeState(account(6)); err != nil {
		t.Error(err)
	}
	if err := highest.CheckNodeState(account(4)); err == nil || !strings.Contains(err.Error(), "fell from") {
		t.Error(err)
	}
}
