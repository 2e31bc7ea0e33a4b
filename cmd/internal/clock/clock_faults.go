// SPDX-License-Identifier: Apache-2.0

//go:build faults

package clock

import (
	"os"
	"time"

	"k8s.io/utils/clock"
)

// System returns the system clock plus the offset in the file $XDP_OPERATOR_CLOCK_OFFSET, for example -1h30m. Without the
// file the offset is zero.
func System() clock.PassiveClock {
	return offsetClock{path: os.Getenv("XDP_OPERATOR_CLOCK_OFFSET")}
}

type offsetClock struct{ path string }

func (c offsetClock) Now() time.Time {
	text, _ := os.ReadFile(c.path)
	offset, _ := time.ParseDuration(string(text))
	return clock.RealClock{}.Now().Add(offset)
}

func (c offsetClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }
