package main

import "fmt"

// budget bounds a figure, from below or from above.
type budget struct {
	bound   float64
	atLeast bool   // else at most
	unit    string // what the bound is in, with a leading space; for people
}

func (b budget) kept(got float64) bool {
	if b.atLeast {
		return got >= b.bound
	}
	return got <= b.bound // not of NaN
}

// String returns the budget without a verdict.
func (b budget) String() string {
	sign := "<="
	if b.atLeast {
		sign = ">="
	}
	return fmt.Sprintf("%s %g%s", sign, b.bound, b.unit)
}

// verdict returns a figure, the budget and whether it is kept.
func (b budget) verdict(got float64) string {
	if b.kept(got) {
		return short(got) + " " + b.String() + "  kept"
	}
	return short(got) + " " + b.String() + "  MISSED"
}

// short returns a figure with three digits or so.
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

// ledger remembers which budgets were missed.
type ledger struct {
	judged int
	missed []string
}

// judge books a figure and returns its verdict.
func (l *ledger) judge(what string, b budget, got float64) string {
	l.judged++
	if !b.kept(got) {
		l.missed = append(l.missed, fmt.Sprintf("%s: %s, must be %s", what, short(got), b))
	}
	return b.verdict(got)
}
