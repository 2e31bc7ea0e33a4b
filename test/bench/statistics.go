package main

import (
	"math"
	"slices"
)

// quantile returns the value below which the share q, from 0 to 1, of the values lies, interpolated between two of
// them; NaN of none. The values may be in any order and stay as they are.
func quantile(q float64, values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	below, part := math.Modf(at)
	i := int(below)
	if i == len(sorted)-1 {
		return sorted[i]
	}
	return sorted[i] + part*(sorted[i+1]-sorted[i])
}

func median(values []float64) float64 {
	return quantile(0.5, values)
}

// undisturbed returns what repeated measurements of one thing say that it costs: the value below which a twentieth of
// them lies. Whatever else the machine does only ever adds, for as long as it lasts: to a CPU that shares a core with
// another one up to as much again. So the lower ones are those that are told again another day. On a machine that does
// nothing else it is hardly another figure than the median; where everything is busy all the time no figure helps.
func undisturbed(values []float64) float64 {
	return quantile(0.05, values)
}

// disturbed returns the share of measurements, from 0 to 1, that are more than a tenth over the undisturbed.
func disturbed(values []float64) float64 {
	bound := 1.1 * undisturbed(values)
	n := 0
	for _, v := range values {
		if v > bound {
			n++
		}
	}
	return float64(n) / float64(len(values))
}
