// SPDX-License-Identifier: Apache-2.0

// Package format writes numbers, plurals and lists for people. All programs use it, so that the same fact reads the same in
// conditions, events, kubectl columns and terminals.
package format

import (
	"fmt"
	"time"
)

// None is the text for a value that is not known.
const None = "-"

var (
	decimalUnits = []string{"", "k", "M", "G", "T", "P", "E"}
	binaryUnits  = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
)

// PerSecond returns a rate in powers of 1000, for example "1.5k". Below 10 it has one decimal.
func PerSecond(rate float64) string { return scaled(rate, 1000, decimalUnits) }

// Packets returns a number of packets in powers of 1000, for example "123.5k". Below 1000 it is exact.
func Packets[N uint64 | int64](n N) string { return exactBelowBase(n, 1000, decimalUnits) }

// Bytes returns a number of bytes in powers of 1024, for example "94.2MiB". Below 1024 it is exact.
func Bytes[N uint64 | int64](n N) string { return exactBelowBase(n, 1024, binaryUnits) }

// Seconds returns a duration in seconds with one decimal, for example "2.0 s".
func Seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// Share returns how much of the whole the part is, in percent without decimals. "0%" means none and "100%" means all:
// a smaller part is at least "<1%", and a part that is not all is at most ">99%". The share of an empty whole is None.
func Share[N uint64 | int64 | float64](part, whole N) string {
	if whole == 0 {
		return None
	}
	percent := 100 * float64(part) / float64(whole)
	switch {
	case part > 0 && percent < 0.5:
		return "<1%"
	case part < whole && percent >= 99.5:
		return ">99%"
	default:
		return fmt.Sprintf("%.0f%%", percent)
	}
}

// exactBelowBase returns all digits of a number below the base, and the result of scaled from there on.
func exactBelowBase[N uint64 | int64](n, base N, units []string) string {
	if n < base {
		return fmt.Sprintf("%d%s", n, units[0])
	}
	return scaled(float64(n), float64(base), units)
}

// scaled returns a number with one decimal in the largest unit in which it is at least 1. Below the base it has a decimal
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
	// Rounding must not reach the base: 999.95 would be written as 1000.0 of the smaller unit.
	for ; value >= base-0.05 && unit < len(units)-1 || unit == 0; unit++ {
		value /= base
	}
	return fmt.Sprintf("%.1f%s", value, units[unit])
}
