// SPDX-License-Identifier: Apache-2.0

package history

import (
	"time"

	"k8s.io/utils/clock"
)

// Skewed is a clock that differs from another one by a fixed time.
type Skewed struct {
	clock.PassiveClock
	By time.Duration
}

// Now implements clock.PassiveClock.
func (s Skewed) Now() time.Time { return s.PassiveClock.Now().Add(s.By) }

// Since implements clock.PassiveClock.
func (s Skewed) Since(t time.Time) time.Duration { return s.Now().Sub(t) }

// Skew returns by how much the clock of a machine is wrong: not at all, by seconds or by hours.
func (h *History) Skew() time.Duration {
	return OneOf(h, 0, -90*time.Second, 2*time.Hour, -3*time.Hour)
}
