// Package display formats counts for the programs: rates, numbers with units, tables that are redrawn on a terminal, and
// JSON. It depends neither on the kernel nor on Kubernetes.
package display

import (
	"fmt"
	"time"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// Rate is a mean over a period of time.
type Rate struct {
	Packets float64 // per second
	Bits    float64 // per second, 8 times the bytes of traffic.Counts
}

// RateOf returns the rate of the growth in the elapsed time. It is zero if no time has elapsed.
func RateOf(growth traffic.Counts, elapsed time.Duration) Rate {
	if elapsed <= 0 {
		return Rate{}
	}
	seconds := elapsed.Seconds()
	return Rate{Packets: float64(growth.Packets) / seconds, Bits: 8 * float64(growth.Bytes) / seconds}
}

// Plus returns the sum.
func (r Rate) Plus(s Rate) Rate { return Rate{Packets: r.Packets + s.Packets, Bits: r.Bits + s.Bits} }

// None is printed in place of an unknown value.
const None = "-"

var (
	decimals = []string{"", "k", "M", "G", "T", "P", "E"}
	binaries = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
)

// PerSecond formats a rate in powers of 1000, for example 1.5k. Below 10 it has one decimal.
func PerSecond(rate float64) string { return scaled(rate, 1000, decimals) }

// Packets formats a number of packets in powers of 1000, exact below 1000, for example 123.5k.
func Packets(n uint64) string { return whole(n, 1000, decimals) }

// Bytes formats a number of bytes in powers of 1024, exact below 1024, for example 94.2MiB.
func Bytes(n uint64) string { return whole(n, 1024, binaries) }

// whole formats a number exactly below the base, and as scaled does otherwise.
func whole(n, base uint64, units []string) string {
	if n < base {
		return fmt.Sprintf("%d%s", n, units[0])
	}
	return scaled(float64(n), float64(base), units)
}

// scaled formats a number with one decimal, in the largest unit in which it is at least 1. Below the base it has a decimal
// only if it is less than 10.
func scaled(value, base float64, units []string) string {
	switch {
	case value == 0:
		return "0" + units[0]
	case value < 9.95:
		return fmt.Sprintf("%.1f%s", value, units[0])
	case value < base-0.5:
		return fmt.Sprintf("%.0f%s", value, units[0])
	}
	unit := 0
	// 999.95 would be formatted as 1000.0 of the smaller unit
	for ; value >= base-0.05 && unit < len(units)-1 || unit == 0; unit++ {
		value /= base
	}
	return fmt.Sprintf("%.1f%s", value, units[unit])
}

// Percent formats a part in percent. It returns 0% only for zero, and 100% only for the whole.
func Percent[N uint64 | float64](part, of N) string {
	if of == 0 {
		return None
	}
	p := 100 * float64(part) / float64(of)
	switch {
	case part > 0 && p < 0.5:
		return "<1%"
	case part < of && p >= 99.5:
		return ">99%"
	default:
		return fmt.Sprintf("%.0f%%", p)
	}
}

// Seconds formats a duration in seconds with one decimal, for example 2.0 s.
func Seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
