// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/cmd/internal/display"
)

func TestReportsGrowth(t *testing.T) {
	c := aCounter("c", traffic.Totals{})
	report := func(at time.Duration, packets uint64) v1alpha1.XDPNodeState {
		return aNode("n1", at, some(map[traffic.Class]uint64{tcp4: packets}), c)
	}
	change := func(s v1alpha1.XDPNodeState, do func(*v1alpha1.XDPNodeState)) v1alpha1.XDPNodeState {
		do(&s)
		return s
	}
	rate := func(packets float64) *display.Rate { return &display.Rate{Packets: packets, Bits: 800 * packets} }

	for name, test := range map[string]struct {
		reports           []v1alpha1.XDPNodeState
		now               time.Duration // after noon; 0 means the time of the last report
		counter, onDevice *display.Rate
	}{
		"one report":                             {[]v1alpha1.XDPNodeState{report(0, 100)}, 0, nil, nil},
		"two reports":                            {[]v1alpha1.XDPNodeState{report(0, 100), report(10*time.Second, 300)}, 0, rate(20), rate(20)},
		"elapsed time differs from the interval": {[]v1alpha1.XDPNodeState{report(0, 100), report(8*time.Second, 300)}, 0, rate(25), rate(25)},
		"three reports: only the last two count": {[]v1alpha1.XDPNodeState{report(0, 0), report(10*time.Second, 1000), report(20*time.Second, 1010)}, 0, rate(1), rate(1)},
		"the same report twice":                  {[]v1alpha1.XDPNodeState{report(0, 100), report(10*time.Second, 300), report(10*time.Second, 300)}, 0, rate(20), rate(20)},
		"a report soon after another is ignored": {[]v1alpha1.XDPNodeState{report(0, 100), report(10*time.Second, 300), report(10100*time.Millisecond, 302)}, 0, rate(20), rate(20)},
		"a regular report after an ignored one":  {[]v1alpha1.XDPNodeState{report(0, 100), report(10*time.Second, 300), report(10100*time.Millisecond, 302), report(20100*time.Millisecond, 402)}, 0, rate(10), rate(10)},
		"no traffic":                             {[]v1alpha1.XDPNodeState{report(0, 100), report(10*time.Second, 100)}, 0, rate(0), rate(0)},
		"the next report is a little late":       {[]v1alpha1.XDPNodeState{report(0, 100), report(10*time.Second, 300)}, 30 * time.Second, rate(20), rate(20)},
		"no third report for a long time": {
			[]v1alpha1.XDPNodeState{report(0, 100), report(10*time.Second, 300)}, 36 * time.Second, rate(0), rate(0),
		},
		"no second report for a long time":  {[]v1alpha1.XDPNodeState{report(0, 100)}, 26 * time.Second, rate(0), rate(0)},
		"the clock of the node is set back": {[]v1alpha1.XDPNodeState{report(time.Minute, 100), report(0, 300)}, 0, nil, nil},
		"a new node state of the same name": {
			[]v1alpha1.XDPNodeState{report(0, 100), change(report(10*time.Second, 5), func(s *v1alpha1.XDPNodeState) { s.UID = "another" })}, 0, nil, nil,
		},
		"a new account": {
			[]v1alpha1.XDPNodeState{change(report(0, 100), func(s *v1alpha1.XDPNodeState) { s.Status.Accounts = nil }), report(10*time.Second, 300)}, 0, rate(30), rate(20),
		},
		"a new map": {
			[]v1alpha1.XDPNodeState{report(0, 100), change(report(10*time.Second, 300), func(s *v1alpha1.XDPNodeState) { s.Status.Interfaces[0].Map = 9 })}, 0, rate(20), rate(30),
		},
		"the same map ID in another boot": {
			[]v1alpha1.XDPNodeState{report(0, 100), change(report(10*time.Second, 300), func(s *v1alpha1.XDPNodeState) { s.Status.Agent.BootID = "again" })}, 0, rate(20), rate(30),
		},
	} {
		t.Run(name, func(t *testing.T) {
			var r reports
			for _, state := range test.reports {
				r = r.next(&state, state.LastReported())
			}
			now := r.received
			if test.now > 0 {
				now = noon.Add(test.now)
			}
			is := func(g growth, ok bool) *display.Rate {
				if !ok {
					return nil
				}
				rate := display.RateOf(g.totals.Sum(), g.elapsed)
				return &rate
			}
			if diff := cmp.Diff(test.counter, is(r.ofCounter(c.UID, now))); diff != "" {
				t.Errorf("of the counter (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.onDevice, is(r.ofInterface(r.last.Status.Interfaces[0], now))); diff != "" {
				t.Errorf("of the interface (-want +got):\n%s", diff)
			}
		})
	}
}
