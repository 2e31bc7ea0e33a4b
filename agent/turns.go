package agent

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// turns knows when a report is due. Totals are reported when it is the node's turn: once in each interval, at a time that
// follows from the node's name. So the nodes of a cluster report one after another and never in step, whatever they were told
// or went through together. Only its own change of state is reported at once.
type turns struct {
	looked time.Time // no turn up to then is open
	missed bool      // the report of the last turn could not be written
	told   time.Time // since when there is a spec that no report follows; zero if there is none
}

// makeUp is how soon a report that could not be written is tried again: at the node's next turn of such a period, and not at
// once, since whatever was in the way may have been in the way of all nodes.
const makeUp = 2 * time.Minute

// due returns how long the next report may wait; zero or less if it is due.
func (t *turns) due(state *v1alpha1.XDPNodeState, next v1alpha1.XDPNodeStateStatus, now time.Time) time.Duration {
	if t.looked.IsZero() || t.looked.After(now) { // the clock was set back
		t.looked = now
	}
	saved, interval := state.Status, state.Spec.ReportInterval.Duration
	if saved.ObservedGeneration == state.Generation {
		t.told = time.Time{}
	} else if t.told.IsZero() {
		t.told = now
	}
	switch {
	case !t.told.IsZero():
		return min(t.told.Add(state.Spec.ReportDelay.Duration).Sub(now), t.next(state.Name, interval).Sub(now))
	case !equality.Semantic.DeepEqual(saved.WithoutTotals(), next.WithoutTotals()):
		return 0
	case !equality.Semantic.DeepEqual(saved.Accounts, next.Accounts):
		return t.next(state.Name, interval).Sub(now)
	default:
		return t.next(state.Name, v1alpha1.HeartbeatInterval(interval)).Sub(now)
	}
}

// pass notes that none of the turns up to now is open any more.
func (t *turns) pass(now time.Time) { t.looked = now }

// tried notes that a report could be written or not. If not, and it was due for another reason than a turn, it stays due.
func (t *turns) tried(now time.Time, err error) { t.looked, t.missed = now, err != nil }

// next returns the node's first open turn.
func (t *turns) next(node string, period time.Duration) time.Time {
	if t.missed {
		period = min(period, makeUp)
	}
	return turnAfter(t.looked, period, node)
}

// turnAfter returns when it is next the node's turn, after a moment, if it has one in each period.
func turnAfter(moment time.Time, period time.Duration, node string) time.Time {
	hash := sha256.Sum256([]byte(node))
	share := float64(binary.BigEndian.Uint32(hash[:])) / (1 << 32)
	phase := time.Duration(share * float64(period))
	return moment.Add(-phase).Truncate(period).Add(period + phase)
}
