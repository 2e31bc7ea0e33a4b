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

// hiddenTimeout is how long the pins may be hidden before the liveness check fails. A container sees file systems that were mounted
// on the node before it started, others only with mount propagation. After a run of ten minutes the kubelet restarts a container
// without a growing delay.
const hiddenTimeout = 10 * time.Minute

// passTimes records when the last pass began, how long the next one may wait, and since when passes do not see the pins, for the
// health checks.
type passTimes struct {
	mu          sync.Mutex
	began       time.Time
	wait        time.Duration
	succeeded   bool      // at least once
	hiddenSince time.Time // zero while the pins are visible
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

// hidden records whether a pass did not see the pins, and reports whether that has changed.
func (p *passTimes) hidden(hidden bool, now time.Time) (changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if hidden != p.hiddenSince.IsZero() {
		return false
	}
	p.hiddenSince = time.Time{}
	if hidden {
		p.hiddenSince = now
	}
	return true
}

// Alive is the liveness check. It fails if no pass has begun for twice the wait after the last one plus a minute, or if no BPF
// file system was visible for ten minutes. It does not fail while the API server is unreachable: passes continue then, and a
// restart would not help.
func (a *Agent) Alive(*http.Request) error {
	a.passTimes.mu.Lock()
	defer a.passTimes.mu.Unlock()
	if a.passTimes.began.IsZero() {
		return nil // still waiting for the API server; Ready reports that
	}
	if late := a.Clock.Now().Sub(a.passTimes.began); late > 2*a.passTimes.wait+slowPass {
		return fmt.Errorf("the last pass began %s ago", late.Round(time.Second))
	}
	if since := a.passTimes.hiddenSince; !since.IsZero() && a.Clock.Since(since) > hiddenTimeout {
		return errors.New("no BPF file system is visible; a restarted container sees one that was mounted since it started")
	}
	return nil
}

// Ready is the readiness check. It fails until one pass has succeeded. Without a BPF file system passes succeed, because they
// report that it is missing.
func (a *Agent) Ready(*http.Request) error {
	a.passTimes.mu.Lock()
	defer a.passTimes.mu.Unlock()
	if !a.passTimes.succeeded {
		return errors.New("no pass has succeeded yet")
	}
	return nil
}
