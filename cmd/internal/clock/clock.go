// SPDX-License-Identifier: Apache-2.0

//go:build !faults

// Package clock returns the clock of the programs. In a build with the tag faults, tests can set it wrong.
package clock

import "k8s.io/utils/clock"

// System returns the system clock.
func System() clock.PassiveClock { return clock.RealClock{} }
