// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"math"
	"time"
)

// Rate is the mean rate of one class.
type Rate struct {
	PacketsPerSecond uint64
	BitsPerSecond    uint64 // 8 times the bytes
}

// Plus returns the sum. It saturates.
func (r Rate) Plus(s Rate) Rate {
	return Rate{add(r.PacketsPerSecond, s.PacketsPerSecond), add(r.BitsPerSecond, s.BitsPerSecond)}
}

// Rates holds the rate of every class, indexed by Class. The zero value is no traffic.
type Rates [NumClasses]Rate

// RatesOver returns the mean rates of the totals over a duration. Each class is rounded by itself. The rates are zero if the
// duration is not positive.
func (t Totals) RatesOver(d time.Duration) Rates {
	var rates Rates
	if d <= 0 {
		return rates
	}
	for class, c := range t.NonZero() {
		rates[class] = Rate{perSecond(float64(c.Packets), d), perSecond(8*float64(c.Bytes), d)}
	}
	return rates
}

func perSecond(n float64, d time.Duration) uint64 {
	return uint64(min(math.Round(n/d.Seconds()), 1<<63))
}

// Sum returns the sum of all classes.
func (r *Rates) Sum() Rate {
	var sum Rate
	for _, c := range r {
		sum = sum.Plus(c)
	}
	return sum
}
