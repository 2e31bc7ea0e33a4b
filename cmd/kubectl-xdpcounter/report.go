// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/cmd/internal/display"
)

// The values of --by, and byCounter, which has no sections but one row per counter.
const (
	byCounter   = "counter"
	byProtocol  = "protocol"
	byFamily    = "family"
	byNode      = "node"
	byInterface = "interface"
)

// The values of --sort.
const (
	sortRate  = "rate"
	sortTotal = "total"
)

// report is the content of one output.
type report struct {
	time     time.Time
	by       string
	sort     string
	note     string    // why the data may be outdated
	sections []section // one per counter, by name
}

// section holds one counter.
type section struct {
	name       string
	ready      metav1.ConditionStatus
	reason     string
	nodes      string // ready/selected
	interfaces string // attached/selected
	reported   time.Time
	all        row   // the sum of the rows
	rows       []row // sorted, the largest first
}

// row is one line of a section.
type row struct {
	name   string // protocol, family, node or interface
	sum    bool   // the row is a sum of others
	family string // of a protocol
	number *uint8 // of a protocol that has one
	node   string // of an interface
	mode   string // of an interface
	counts traffic.Counts
	rate   *display.Rate // nil if not known
	// The packet rates of the previous outputs and this one, the latest last.
	history []float64
}

// retiredName is the row of nodes that have left the cluster. It is not a valid name of a node.
const retiredName = "(gone)"

// build returns the report. If measure is true, rates are computed from node reports where possible. Otherwise they are
// those of the statuses.
func (o *objectCache) build(by, sort string, measure bool, now time.Time) report {
	r := report{time: now, by: by, sort: sort, note: o.note()}
	for _, name := range slices.Sorted(maps.Keys(o.counters)) {
		c := o.counters[name]
		s := section{name: name, ready: metav1.ConditionUnknown}
		if ready := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
			s.ready, s.reason = ready.Status, ready.Reason
		}
		if summary := c.Status.Summary; summary != nil {
			s.nodes, s.interfaces = summary.Nodes, summary.Interfaces
		}
		if t := c.Status.LastReportTime; t != nil {
			s.reported = t.Time
		}
		switch by {
		case byNode:
			s.rows = o.nodeRows(&c, measure, now)
		case byInterface:
			s.rows = o.interfaceRows(&c, measure, now)
		case byFamily:
			s.rows = families(o.protocolRows(&c, measure, now))
		default:
			s.rows = o.protocolRows(&c, measure, now)
		}
		s.all = sum("all", s.rows)
		if total := c.Status.Total; s.all.rate == nil && total != nil && by != byInterface { // the controller does not write rates per protocol
			s.all.rate = &display.Rate{Packets: float64(total.PacketsPerSecond), Bits: float64(total.BitsPerSecond)}
		}
		order(s.rows, sort)
		r.sections = append(r.sections, s)
	}
	if by == byCounter {
		slices.SortStableFunc(r.sections, func(a, b section) int { return compare(a.all, b.all, sort) })
	}
	return r
}

// order sorts the rows, the largest first.
func order(rows []row, by string) {
	slices.SortStableFunc(rows, func(a, b row) int { return compare(a, b, by) })
}

func compare(a, b row, by string) int {
	rate := cmp.Compare(b.packetRate(), a.packetRate())
	total := cmp.Or(cmp.Compare(b.counts.Packets, a.counts.Packets), cmp.Compare(b.counts.Bytes, a.counts.Bytes))
	if by == sortTotal {
		return cmp.Or(total, rate)
	}
	return cmp.Or(rate, total)
}

// packetRate returns the packets per second, or 0 if the rate is not known.
func (r row) packetRate() float64 {
	if r.rate == nil {
		return 0
	}
	return r.rate.Packets
}

// sum returns the sum of the rows. Its rate is not known if no row has a rate.
func sum(name string, rows []row) row {
	all := row{name: name, sum: true}
	for _, r := range rows {
		all.counts = all.counts.Plus(r.counts)
		if r.rate != nil {
			rate := *r.rate
			if all.rate != nil {
				rate = rate.Plus(*all.rate)
			}
			all.rate = &rate
		}
	}
	if len(rows) == 0 {
		all.rate = &display.Rate{}
	}
	return all
}

// protocolRows returns the totals of the counter's status.
func (o *objectCache) protocolRows(c *v1alpha1.XDPCounter, measure bool, now time.Time) []row {
	rates, known := o.rates(c.UID, now)
	var rows []row
	for _, p := range c.Status.Protocols {
		class, ok := classOf(p)
		r := row{name: p.Protocol, family: p.Family, counts: countsOf(p.Packets, p.Bytes)}
		if p.Number != nil {
			number := uint8(*p.Number)
			r.number = &number
		} else {
			r.family = ""
		}
		rate := display.Rate{Packets: float64(p.PacketsPerSecond), Bits: float64(p.BitsPerSecond)}
		if ok && measure && known {
			rate = rates[class]
		}
		r.rate = &rate
		rows = append(rows, r)
	}
	return rows
}

// rates returns the rate of each class, added up over all nodes. known is false if the rate of a node is not known.
func (o *objectCache) rates(counter types.UID, now time.Time) (rates map[traffic.Class]display.Rate, known bool) {
	rates = map[traffic.Class]display.Rate{}
	for _, node := range o.nodes {
		if node.last.Account(counter) == nil {
			continue
		}
		grown, ok := node.ofCounter(counter, now)
		if !ok {
			return nil, false
		}
		for class := range grown.totals.NonZero() {
			rates[class] = rates[class].Plus(grown.rate(class))
		}
	}
	return rates, true
}

// families returns the sum of the protocols of each family.
func families(protocols []row) []row {
	byName := map[string][]row{}
	for _, r := range protocols {
		name := r.family
		if name == "" {
			name = r.name
		}
		byName[name] = append(byName[name], r)
	}
	var rows []row
	for _, f := range traffic.Families() {
		if members := byName[f.String()]; members != nil {
			rows = append(rows, sum(f.String(), members))
		}
	}
	return rows
}

// nodeRows returns the accounts of the nodes, and the sum of the nodes that have left the cluster.
func (o *objectCache) nodeRows(c *v1alpha1.XDPCounter, measure bool, now time.Time) []row {
	var rows []row
	present := map[types.UID]bool{}
	for _, name := range slices.Sorted(maps.Keys(o.nodes)) {
		node := o.nodes[name]
		present[node.last.UID] = true
		account := node.last.Account(c.UID)
		if account == nil {
			continue
		}
		rate := account.Rate()
		r := row{
			name: name, counts: account.Sum(),
			rate: &display.Rate{Packets: float64(rate.PacketsPerSecond), Bits: float64(rate.BitsPerSecond)},
		}
		if reason, _ := lateness(c, node.last, now); reason != "" {
			r.rate = nil
		} else if grown, ok := node.ofCounter(c.UID, now); ok && measure {
			rate := display.RateOf(grown.totals.Sum(), grown.elapsed)
			r.rate = &rate
		}
		rows = append(rows, r)
	}
	if retired := c.Status.Retired; retired != nil {
		totals := v1alpha1.TotalsOf(retired.Counts)
		for _, d := range retired.Departing {
			if !present[d.UID] {
				totals = totals.Plus(v1alpha1.TotalsOf(d.Counts))
			}
		}
		if counts := totals.Sum(); !counts.IsZero() {
			rows = append(rows, row{name: retiredName, counts: counts, rate: &display.Rate{}})
		}
	}
	return rows
}

// interfaceRows returns the counts of the interfaces since they were attached, regardless of when the counter was created.
func (o *objectCache) interfaceRows(c *v1alpha1.XDPCounter, measure bool, now time.Time) []row {
	var rows []row
	for _, name := range slices.Sorted(maps.Keys(o.nodes)) {
		node := o.nodes[name]
		late, _ := lateness(c, node.last, now)
		for _, i := range node.last.Status.Interfaces {
			if i.State != v1alpha1.InterfaceAttached || !slices.Contains(i.Counters, c.UID) {
				continue
			}
			totals := v1alpha1.TotalsOf(i.Counts)
			r := row{name: i.Name, node: name, mode: string(i.Mode), counts: totals.Sum()}
			if grown, ok := node.ofInterface(i, now); ok && measure && late == "" {
				rate := display.RateOf(grown.totals.Sum(), grown.elapsed)
				r.rate = &rate
			}
			rows = append(rows, r)
		}
	}
	return rows
}

func classOf(p v1alpha1.ProtocolCounts) (traffic.Class, bool) {
	if p.Number == nil {
		return traffic.ParseClass(p.Family)
	}
	return traffic.ParseClass(p.Family + "/" + p.Protocol)
}

func countsOf(packets, bytes int64) traffic.Counts {
	return traffic.Counts{Packets: uint64(max(packets, 0)), Bytes: uint64(max(bytes, 0))}
}
