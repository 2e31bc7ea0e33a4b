// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"math/bits"
	"sync"
	"time"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// Budget limits what all agents of the cluster together report. Zero or less: no limit.
type Budget struct {
	WritesPerSecond float64
	BytesPerSecond  float64 // of the requests' bodies
}

// regularShare is the part of the budget that reports at intervals may take. The rest is kept for reports that follow a
// change of a spec.
const regularShare = 0.75

// interval doubles the wanted interval until the reports of that many nodes stay within the budget of writes.
func (b Budget) interval(wanted time.Duration, nodes int) time.Duration {
	if b.WritesPerSecond <= 0 {
		return wanted
	}
	for wanted.Seconds()*regularShare*b.WritesPerSecond < float64(nodes) {
		wanted *= 2
	}
	return wanted
}

// bytesPerNode returns the share of the bytes that each of that many nodes may report per second. Zero: no limit.
func (b Budget) bytesPerNode(nodes int) int64 {
	if b.BytesPerSecond <= 0 || nodes <= 0 {
		return 0
	}
	return max(1, int64(regularShare*b.BytesPerSecond/float64(nodes)))
}

// cost returns how much of the budget one report takes, as the time in which the budget for it accrues.
func (b Budget) cost(bytes int32) (seconds float64) {
	if b.WritesPerSecond > 0 {
		seconds = 1 / b.WritesPerSecond
	}
	if b.BytesPerSecond > 0 {
		seconds = max(seconds, float64(bytes)/b.BytesPerSecond)
	}
	return seconds
}

// unknownReportBytes is the size assumed for a node that has not reported yet.
const unknownReportBytes = 2000

// specPace limits how fast specs are written. An agent reports as soon as it follows a new spec, so the pace of the specs is
// the pace of these reports: what the regular reports leave of the budget. The zero value is ready to use, by several
// goroutines.
type specPace struct {
	mu    sync.Mutex
	free  time.Time            // when the budget of all writes so far has accrued
	turns map[string]time.Time // by node: when a spec that had to wait may be written
}

// wait returns how long the spec of a node has to wait. Zero: it may be written now. The node keeps its place until done is
// called, however often wait is.
func (p *specPace) wait(b Budget, state *v1alpha1.XDPNodeState, name string, nodes int, interval time.Duration, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	turn, ok := p.turns[name]
	if !ok {
		reports, bytes := 2, int32(unknownReportBytes) // a new node reports once before it attaches, and once after
		if state != nil && state.Status.ReportBytes > 0 {
			reports, bytes = 1, state.Status.ReportBytes
		}
		cost := b.cost(bytes)
		left := max(1-regularShare, 1-float64(nodes)*cost/interval.Seconds()) // what regular reports leave
		if oldest := now.Add(-time.Second); p.free.Before(oldest) {           // the budget of one second may be used at once
			p.free = oldest
		}
		p.free = p.free.Add(time.Duration(float64(reports) * cost / left * float64(time.Second)))
		turn = p.free
		if p.turns == nil {
			p.turns = map[string]time.Time{}
		}
		p.turns[name] = turn
	}
	return max(0, turn.Sub(now))
}

// done gives up the place of a node: its spec is written, or needs no write any more.
func (p *specPace) done(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.turns, name)
}

// nodeCount counts the nodes that share the budget. The zero value has none.
type nodeCount struct {
	mu      sync.Mutex
	nodes   int
	rounded int
}

// add adds nodes, or removes them if negative. It reports whether the rounded number has changed, so that every spec has to
// be computed again.
func (c *nodeCount) add(nodes int) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes += nodes
	if c.nodes <= c.rounded && 4*c.nodes >= 3*c.rounded {
		return false
	}
	before := c.rounded
	c.rounded = roundUp(c.nodes)
	return c.rounded != before
}

// get returns the number of nodes, rounded up, so that it does not change with each node that comes or goes.
func (c *nodeCount) get() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rounded
}

// roundUp rounds up to three binary digits: by a quarter at most.
func roundUp(nodes int) int {
	step := 1 << max(0, bits.Len(uint(nodes))-3)
	return (nodes + step - 1) / step * step
}
