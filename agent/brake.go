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

// patience is how long a version that was replaced is waited out. A watch tells of the next one sooner; an API server that was
// set back to a backup never does.
const patience = 30 * time.Second

// brake holds reports back: those of a storm, and those that the API server would refuse. The zero value is ready to use.
type brake struct {
	limiter  *tokens.Limiter
	replaced string // the version of the node state that is known to be replaced
	since    time.Time
}

// holds reports that a report on that version has to wait: less than pause, or until the watch tells of the next version.
func (b *brake) holds(version string, now time.Time) bool {
	if b.limiter == nil {
		b.limiter = tokens.NewLimiter(tokens.Every(pause), burst)
	}
	if version == b.replaced && now.Sub(b.since) < patience {
		return true
	}
	return !b.limiter.AllowN(now, 1)
}

// replace notes that the version is replaced: by a report, or by whoever made a report be refused.
func (b *brake) replace(version string, now time.Time) { b.replaced, b.since = version, now }
