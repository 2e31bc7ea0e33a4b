// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"math"
	"testing"
	"time"
)

func TestRatesOver(t *testing.T) {
	const arp, tcp = ClassARP, Class(6)
	growth := Totals{arp: {Packets: 15, Bytes: 630}, tcp: {Packets: 1000, Bytes: 1_500_000}}
	for name, tc := range map[string]struct {
		over     time.Duration
		arp, tcp Rate
	}{
		"ten seconds":         {10 * time.Second, Rate{2, 504}, Rate{100, 1_200_000}},
		"a tenth of a second": {100 * time.Millisecond, Rate{150, 50_400}, Rate{10_000, 120_000_000}},
		"an hour, rounded":    {time.Hour, Rate{0, 1}, Rate{0, 3333}},
		"zero duration":       {0, Rate{}, Rate{}},
		"negative duration":   {-time.Second, Rate{}, Rate{}},
	} {
		rates := growth.RatesOver(tc.over)
		if rates[arp] != tc.arp || rates[tcp] != tc.tcp {
			t.Errorf("over %s: %v and %v, want %v and %v", name, rates[arp], rates[tcp], tc.arp, tc.tcp)
		}
		if sum := rates.Sum(); sum != tc.arp.Plus(tc.tcp) {
			t.Errorf("over %s: the sum is %v", name, sum)
		}
	}
	huge := Totals{tcp: {Packets: math.MaxUint64, Bytes: math.MaxUint64}}
	if got := huge.RatesOver(time.Nanosecond)[tcp]; got != (Rate{1 << 63, 1 << 63}) {
		t.Errorf("the largest rate is %v, want 2^63 of both", got)
	}
}
