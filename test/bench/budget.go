// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// budget is a lower or upper limit of a result.
type budget struct {
	bound   float64
	atLeast bool   // otherwise at most
	unit    string // unit of the bound for output, with a leading space
	known   string // why it is known to be missed; "" if it is not
}

func (b budget) kept(got float64) bool {
	if b.atLeast {
		return got >= b.bound
	}
	return got <= b.bound // false for NaN
}

// String returns the budget without a verdict.
func (b budget) String() string {
	sign := "<="
	if b.atLeast {
		sign = ">="
	}
	return fmt.Sprintf("%s %g%s", sign, b.bound, b.unit)
}

// verdict formats a result, its budget, and whether it is kept.
func (b budget) verdict(got float64) string {
	return short(got) + " " + b.String() + "  " + b.outcome(got)
}

func (b budget) outcome(got float64) string {
	switch {
	case b.kept(got):
		return "kept"
	case b.known != "":
		return "MISSED, as known"
	default:
		return "MISSED"
	}
}

// short formats a number with about three digits.
func short(got float64) string {
	switch {
	case got >= 100:
		return fmt.Sprintf("%.0f", got)
	case got >= 10:
		return fmt.Sprintf("%.1f", got)
	default:
		return fmt.Sprintf("%.2f", got)
	}
}

// ledger records the budgets that were missed.
type ledger struct {
	judged int
	missed []string
	known  []string // missed too, with the reason
}

// judge records a result and returns its verdict.
func (l *ledger) judge(what string, b budget, got float64) string {
	l.judged++
	if b.kept(got) {
		return b.verdict(got)
	}
	miss := fmt.Sprintf("%s: %s, must be %s", what, short(got), b)
	if b.known != "" {
		l.known = append(l.known, miss+" ("+b.known+")")
	} else {
		l.missed = append(l.missed, miss)
	}
	return b.verdict(got)
}

// judgeEstimate is judge for a figure that differs from round to round. The budget is missed only if the whole interval misses
// it: a machine that is busy with other work makes the interval wide, and no figure wrong.
func (l *ledger) judgeEstimate(what string, b budget, e estimate) string {
	best := e.low
	if b.atLeast {
		best = e.high
	}
	l.judge(what, b, best)
	outcome := b.outcome(best)
	if b.kept(best) && !b.kept(e.median) {
		outcome += " within the spread"
	}
	return fmt.Sprintf("%s %s  %s", e, b, outcome)
}
