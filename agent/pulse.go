package agent

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// slowPass is how long a pass may take or be late before the agent counts as stuck.
const slowPass = time.Minute

// pulse remembers when the last pass began and when the next is due, for the health checks only.
type pulse struct {
	mu     sync.Mutex
	began  time.Time
	next   time.Duration
	passed bool
}

func (p *pulse) begin(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began = now
}

func (p *pulse) end(next time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next, p.passed = next, true
}

// Alive is a health check: it fails when the pass that is due has not begun for a minute and twice its wait. An
// API server that is away does not make it fail: the passes go on, and starting again would mend nothing.
func (a *Agent) Alive(*http.Request) error {
	a.pulse.mu.Lock()
	defer a.pulse.mu.Unlock()
	if a.pulse.began.IsZero() {
		return nil // still waiting for the API server; readiness tells
	}
	if late := a.Clock.Now().Sub(a.pulse.began); late > 2*a.pulse.next+slowPass {
		return fmt.Errorf("the last pass began %s ago", late.Round(time.Second))
	}
	return nil
}

// Ready is a readiness check: it fails until one pass has succeeded.
func (a *Agent) Ready(*http.Request) error {
	a.pulse.mu.Lock()
	defer a.pulse.mu.Unlock()
	if !a.pulse.passed {
		return errors.New("no pass has succeeded yet")
	}
	return nil
}
