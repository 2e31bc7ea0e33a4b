package agent

import (
	"time"

	tokens "golang.org/x/time/rate"
)

// A change of state is reported at once. Where interfaces come and go without an end, the reports of a node are no more
// than burst and then one per pause; what happened in between is told together.
const (
	burst = 10
	pause = 500 * time.Millisecond
)

// brake holds the reports of a storm back. The zero value is ready to use.
type brake struct{ limiter *tokens.Limiter }

// holds reports that a report has to wait: less than pause.
func (b *brake) holds(now time.Time) bool {
	if b.limiter == nil {
		b.limiter = tokens.NewLimiter(tokens.Every(pause), burst)
	}
	return !b.limiter.AllowN(now, 1)
}
