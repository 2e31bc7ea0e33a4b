// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// slowPass is how long a pass may take, or start late, before the liveness check fails.
const slowPass = time.Minute

// passTimes records when the last pass began and how long the next one may wait, for the health checks.
type passTimes struct {
	mu        sync.Mutex
	began     time.Time
	wait      time.Duration
	succeeded bool // at least once
}

func (p *passTimes) begin(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began = now
}

func (p *passTimes) end(wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wait, p.succeeded = wait, true
}

// Alive is the liveness check. It fails if no pass has begun for twice the wait after the last one plus a minute. It does
// not fail while the API server is unreachable: passes continue then, and a restart would not help.
func (a *Agent) Alive(*http.Request) error {
	a.passTimes.mu.Lock()
	defer a.passTimes.mu.Unlock()
	if a.passTimes.began.IsZero() {
		return nil // still waiting for the API server; Ready reports that
	}
	if late := a.Clock.Now().Sub(a.passTimes.began); late > 2*a.passTimes.wait+slowPass {
		return fmt.Errorf("the last pass began %s ago", late.Round(time.Second))
	}
	return nil
}

// Ready is the readiness check. It fails until one pass has succeeded.
func (a *Agent) Ready(*http.Request) error {
	a.passTimes.mu.Lock()
	defer a.passTimes.mu.Unlock()
	if !a.passTimes.succeeded {
		return errors.New("no pass has succeeded yet")
	}
	return nil
}
