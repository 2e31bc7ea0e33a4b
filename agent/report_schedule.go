// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// A change of state is written at once. Where interfaces come and go all the time, a node writes reportBurst reports in a
// row and then one per reportPause, each with everything that has changed since the last.
const (
	reportBurst = 10
	reportPause = 500 * time.Millisecond
)

const (
	// retryPeriod is how soon a regular report that could not be written is tried again: at the node's next turn of such a
	// period, and not at once, because what failed may have failed for all nodes.
	retryPeriod = 2 * time.Minute
	// staleTimeout is how long a version of the node state that is known to be replaced is not written on. The watch
	// delivers the next version sooner; an API server that was restored from a backup never does.
	staleTimeout = 30 * time.Second
)

// reportSchedule decides when the status of the node state is written. The zero value is ready to use.
//
// Totals are written once per interval, and heartbeats once per heartbeat interval, at a time that is derived from the node's
// name. So the nodes of a cluster report one after another, whatever happened to all of them at the same time.
type reportSchedule struct {
	passed     time.Time // the last pass or write: turns up to then are over
	failed     bool      // the last write failed
	limiter    *rate.Limiter
	replaced   string // the version of the node state that is known to be replaced
	replacedAt time.Time
}

// next reports whether the status has to be written (due), and how long it has to wait. With due, zero means now. Without due,
// it is the time until the next regular report. unsaved is true if counts have to be saved before the pass detaches.
func (s *reportSchedule) next(state *v1alpha1.XDPNodeState, status v1alpha1.XDPNodeStateStatus, unsaved bool, now time.Time) (wait time.Duration, due bool) {
	if s.passed.IsZero() || s.passed.After(now) { // the clock was set back
		s.passed = now
	}
	if wait = s.regular(state, status).Sub(now); wait > 0 && !unsaved && !stateChanged(state.Status, status) {
		s.passed = now
		return wait, false
	}
	if s.limiter == nil {
		s.limiter = rate.NewLimiter(rate.Every(reportPause), reportBurst)
	}
	stale := state.ResourceVersion == s.replaced && now.Sub(s.replacedAt) < staleTimeout
	if stale || !s.limiter.AllowN(now, 1) {
		return reportPause, true
	}
	return 0, true
}

// regular returns the node's next turn to report totals if they have changed, else for a heartbeat.
func (s *reportSchedule) regular(state *v1alpha1.XDPNodeState, status v1alpha1.XDPNodeStateStatus) time.Time {
	period := state.ReportInterval()
	if equality.Semantic.DeepEqual(state.Status.Accounts, status.Accounts) {
		period = v1alpha1.HeartbeatInterval(period)
	}
	if s.failed {
		period = min(period, retryPeriod)
	}
	return turnAfter(s.passed, period, state.Name)
}

// wrote records the result of a write on a version of the node state. A conflict is neither success nor failure: the report
// stays due, and is made again on the next version.
func (s *reportSchedule) wrote(version string, conflict bool, err error, now time.Time) {
	if err == nil || conflict {
		s.replaced, s.replacedAt = version, now
	}
	if !conflict {
		s.passed, s.failed = now, err != nil
	}
}

// stateChanged reports whether two statuses differ in more than totals and times.
func stateChanged(before, after v1alpha1.XDPNodeStateStatus) bool {
	return !equality.Semantic.DeepEqual(before.WithoutTotals(), after.WithoutTotals())
}

// turnAfter returns the node's first turn after a moment, if it has one turn in each period. The turns of a multiple of the period
// are turns of the period too. So when reports become larger and periods longer, no node gets an additional turn.
func turnAfter(moment time.Time, period time.Duration, node string) time.Time {
	if period <= 0 {
		return moment
	}
	hash := sha256.Sum256([]byte(node))
	phase := time.Duration(binary.BigEndian.Uint64(hash[:]) % uint64(period))
	return moment.Add(-phase).Truncate(period).Add(period + phase)
}
