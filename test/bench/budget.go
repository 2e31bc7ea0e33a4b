// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// budget is a lower or upper limit of a result.
type budget struct {
	bound   float64
	atLeast bool   // otherwise at most
	unit    string // unit of the bound for output, with a leading space
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
	if b.kept(got) {
		return short(got) + " " + b.String() + "  kept"
	}
	return short(got) + " " + b.String() + "  MISSED"
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
}

// judge records a result and returns its verdict.
func (l *ledger) judge(what string, b budget, got float64) string {
	l.judged++
	if !b.kept(got) {
		l.missed = append(l.missed, fmt.Sprintf("%s: %s, must be %s", what, short(got), b))
	}
	return b.verdict(got)
}
