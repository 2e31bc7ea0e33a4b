//go:build !faults

// Package clock is the time of the programs: the system's, and in a build with the tag faults one that can be wrong.
package clock

import "k8s.io/utils/clock"

// System returns the clock of the machine.
func System() clock.PassiveClock { return clock.RealClock{} }
