// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"slices"
)

// quantile returns the q-quantile of the values, q from 0 to 1, interpolated between two values. It is NaN without values. The
// values can be in any order and are not changed.
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

// estimate is a median and the interval in which the true one is, with a probability of at least 95 %.
type estimate struct{ median, low, high float64 }

// estimateMedian returns the median of the values with its interval, from the order of the values alone: between how many of n
// the true median is has a binomial distribution. With fewer than 6 values the interval is their whole range.
func estimateMedian(values []float64) estimate {
	n := len(values)
	if n == 0 {
		return estimate{math.NaN(), math.NaN(), math.NaN()}
	}
	sorted := slices.Sorted(slices.Values(values))
	// below is the probability that no more than cut values are less than the true median.
	cut, term := 0, math.Pow(0.5, float64(n))
	for below := term; below <= 0.025; below += term {
		cut++
		term *= float64(n-cut+1) / float64(cut)
	}
	least := max(cut-1, 0)
	return estimate{median(values), sorted[least], sorted[n-1-least]}
}

func (e estimate) String() string {
	return fmt.Sprintf("%s (%s..%s)", short(e.median), short(e.low), short(e.high))
}

// undisturbed returns the cost from repeated measurements: the 5th percentile. Other work on the machine only increases a
// measurement, on a CPU that shares its core with another one up to double. So the lower values are reproducible. On an idle
// machine the result is close to the median. On a machine that is always busy no statistic helps.
func undisturbed(values []float64) float64 {
	return quantile(0.05, values)
}

// disturbed returns the share of measurements, from 0 to 1, that are more than 10 % above the undisturbed value.
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
