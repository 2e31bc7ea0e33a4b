// SPDX-License-Identifier: Apache-2.0

// Package display is what the programs with a terminal share: rates, tables that replace each other on the screen, and JSON.
// It knows neither the kernel nor Kubernetes.
package display

import (
	"time"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// Rate is a mean over some time.
type Rate struct {
	Packets float64 // per second
	Bits    float64 // per second, 8 times the bytes of traffic.Counts
}

// RateOf returns the mean rate of the growth over the elapsed time. It is zero if no time has elapsed.
func RateOf(growth traffic.Counts, elapsed time.Duration) Rate {
	if elapsed <= 0 {
		return Rate{}
	}
	seconds := elapsed.Seconds()
	return Rate{Packets: float64(growth.Packets) / seconds, Bits: 8 * float64(growth.Bytes) / seconds}
}

// Plus returns the sum.
func (r Rate) Plus(s Rate) Rate { return Rate{Packets: r.Packets + s.Packets, Bits: r.Bits + s.Bits} }
