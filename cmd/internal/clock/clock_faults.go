//go:build faults

package clock

import (
	"os"
	"time"

	"k8s.io/utils/clock"
)

// System returns a clock that is wrong by what the file in $XDP_OPERATOR_CLOCK_OFFSET says, for example -1h30m.
// Without it, it is right.
func System() clock.PassiveClock {
	return wrongClock{path: os.Getenv("XDP_OPERATOR_CLOCK_OFFSET")}
}

type wrongClock struct{ path string }

func (c wrongClock) Now() time.Time {
	text, _ := os.ReadFile(c.path)
	offset, _ := time.ParseDuration(string(text))
	return clock.RealClock{}.Now().Add(offset)
}

func (c wrongClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }
