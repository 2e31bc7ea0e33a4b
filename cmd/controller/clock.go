//go:build !faults

package main

import "k8s.io/utils/clock"

func systemClock() clock.PassiveClock { return clock.RealClock{} }
