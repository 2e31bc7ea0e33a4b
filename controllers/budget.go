package controllers

import (
	"math/bits"
	"sync"
	"time"

	tokens "golang.org/x/time/rate"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// Budget bounds what all agents of the cluster together report. Zero or less: no bound.
type Budget struct {
	WritesPerSecond float64
	BytesPerSecond  float64 // of the requests' bodies
}

// stretch doubles the interval until that many nodes stay within the budget if each reports so many bytes. A node has an
// equal share of the budget, whatever the others report: so what it is told does not depend on them, and the sum of all
// is within the budget.
func (b Budget) stretch(interval time.Duration, nodes, size int) time.Duration {
	var least float64 // seconds
	if b.WritesPerSecond > 0 {
		least = float64(nodes) / b.WritesPerSecond
	}
	if b.BytesPerSecond > 0 {
		least = max(least, float64(nodes)*float64(size)/b.BytesPerSecond)
	}
	for interval.Seconds() < least {
		interval *= 2
	}
	return interval
}

// slots hands out when reports may be written that no interval bounds: those that follow a change of a spec. So however many
// nodes are told something at the same time, they do not report at the same time. The zero value is ready to use, by many at
// once.
type slots struct {
	begin   sync.Once
	limiter *tokens.Limiter
}

// A slot is paid for in microseconds of the cluster's budget, of which a second is there to begin with.
const aSecond = 1_000_000

// take returns how long reports of so many bytes are to wait, those of one of so many nodes that report a size once in an
// interval: no longer than for the regular one. What those need is not handed out, nor more than three quarters withheld.
func (s *slots) take(b Budget, reports []int, size, nodes int, interval time.Duration, now time.Time) time.Duration {
	cost := func(budget, owed, each float64) float64 { // in seconds
		if budget <= 0 {
			return 0
		}
		return owed / max(budget/4, budget-float64(nodes)*each/interval.Seconds())
	}
	bytes := 0
	for _, report := range reports {
		bytes += report
	}
	seconds := max(cost(b.WritesPerSecond, float64(len(reports)), 1), cost(b.BytesPerSecond, float64(bytes), float64(size)))
	s.begin.Do(func() { s.limiter = tokens.NewLimiter(aSecond, aSecond) })
	var wait time.Duration
	for left := int(seconds * aSecond); left > 0; left -= aSecond {
		slot := s.limiter.ReserveN(now, min(left, aSecond))
		if wait = slot.DelayFrom(now); wait >= interval { // the regular report tells of it
			slot.CancelAt(now)
			return interval
		}
	}
	return wait
}

// What the parts of a report take in JSON, in bytes, with counts of twelve digits.
const (
	sizeOfReport    = 1000 // the object without the lists, and without its spec
	sizeOfInterface = 200
	sizeOfAccount   = 72
	sizeOfUID       = 40
	sizeOfClass     = 48 // of an interface
	sizeOfRates     = 18 // more, of an account
	fewClasses      = 4  // what is taken for granted of one that has not counted yet
)

// openingSize returns how many bytes the first report takes, with which the node's agent opens its ledger.
func openingSize(counters []v1alpha1.NodeCounter) int {
	return sizeOfReport + len(counters)*sizeOfAccount
}

// reportSize returns how many bytes a report takes with which the node's agent follows the counters, near enough. It
// counts the entries and not their digits: so it stays the same while nothing but totals and rates change, and what is
// told for its sake does not change it. How many classes an interface has is taken from the accounts, which have no
// fewer: the caches do not keep it.
func reportSize(counters []v1alpha1.NodeCounter, state *v1alpha1.XDPNodeState) int {
	size, widest := sizeOfReport, fewClasses
	for _, c := range counters {
		classes := fewClasses
		if state != nil {
			if account := state.Account(c.UID); account != nil {
				classes = max(classes, len(account.Counts))
			}
		}
		widest = max(widest, classes)
		size += sizeOfAccount + classes*(sizeOfClass+sizeOfRates)
	}
	if state == nil || len(state.Status.Interfaces) == 0 { // one, in all likelihood
		return size + sizeOfInterface + len(counters)*sizeOfUID + widest*sizeOfClass
	}
	for _, i := range state.Status.Interfaces {
		size += sizeOfInterface + len(i.Message) + len(i.Counters)*sizeOfUID + widest*sizeOfClass
	}
	return size
}

// census counts the nodes that share the budget. The zero value has none.
type census struct {
	mu    sync.Mutex
	nodes int
	room  int
}

// add takes up that some nodes came, or fewer than none went. It reports whether all have to be told anew.
func (c *census) add(nodes int) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes += nodes
	if c.nodes <= c.room && 4*c.nodes >= 3*c.room {
		return false
	}
	before := c.room
	c.room = roomFor(c.nodes)
	return c.room != before
}

// sharers returns for how many nodes there is room in what all are told: no fewer than there are, and not another number
// with each that comes or goes.
func (c *census) sharers() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.room
}

// roomFor rounds up to three binary digits: by a quarter at most.
func roomFor(nodes int) int {
	step := 1 << max(0, bits.Len(uint(nodes))-3)
	return (nodes + step - 1) / step * step
}
