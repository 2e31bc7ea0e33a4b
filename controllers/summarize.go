// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/internal/format"
)

// maxFailures is how many failures a status lists. status.nodes and status.interfaces have their full numbers.
const maxFailures = 10

// summarize computes the status of a counter from the nodes, the node states, when their reports were seen, and the time. It
// copies status.retired.
func summarize(c *v1alpha1.XDPCounter, nodes []corev1.Node, states []v1alpha1.XDPNodeState, seen map[types.UID]sighting, now time.Time) v1alpha1.XDPCounterStatus {
	byName := make(map[string]*v1alpha1.XDPNodeState, len(states))
	for i := range states {
		byName[states[i].Name] = &states[i]
	}
	selector, err := nodeSelector(c)
	s := nodeSummary{invalid: err}
	for i := range nodes {
		node, state := &nodes[i], byName[nodes[i].Name]
		selected, hasAgent := !c.Spec.Suspend && selector.Matches(labels.Set(node.Labels)), canRunAgent(node)
		if selected && !hasAgent {
			s.leftOut = append(s.leftOut, node.Name)
		}
		if selected && hasAgent {
			s.node(c, node.Name, state, seen, now)
		} else if state != nil {
			s.left(c, state, seen[state.UID], now)
		}
	}
	status := v1alpha1.XDPCounterStatus{
		ObservedGeneration: c.Generation,
		Conditions:         slices.Clone(c.Status.Conditions),
		Nodes:              &s.nodes,
		Interfaces:         &s.interfaces,
		Retired:            c.Status.Retired.DeepCopy(),
		ReportInterval:     &metav1.Duration{Duration: max(s.reportInterval, wantedInterval(c))},
	}
	s.sort()
	status.Failures = s.failures[:min(len(s.failures), maxFailures)]
	setConditions(&status.Conditions, s.ready(c), c, now)

	totals, rates, last := sum(c, states, seen, now)
	// The caches may be older than the status. Counts never decrease, so the larger value is the newer one, and a total that
	// was written never decreases.
	totals = totals.Max(v1alpha1.TotalsOfProtocols(c.Status.Protocols))
	total, rate := totals.Sum(), rates.Sum()
	status.Total = &v1alpha1.Total{
		Packets:          v1alpha1.Int64(total.Packets),
		Bytes:            v1alpha1.Int64(total.Bytes),
		PacketsPerSecond: v1alpha1.Int64(rate.PacketsPerSecond),
		BitsPerSecond:    v1alpha1.Int64(rate.BitsPerSecond),
	}
	status.Families = v1alpha1.FamiliesOf(totals)
	status.Protocols = v1alpha1.ProtocolsOf(totals, rates)
	status.LastReportTime = last
	status.Summary = summaryText(status)
	return status
}

// sum adds the accounts of all node states, including those of nodes that are no longer selected, and the retired share. The
// totals of a node that is late are included, its rates are not. The rates of the other nodes are those of their latest
// reports; a node reports zero when its traffic ends.
func sum(c *v1alpha1.XDPCounter, states []v1alpha1.XDPNodeState, seen map[types.UID]sighting, now time.Time) (totals traffic.Totals, rates traffic.Rates, last *metav1.Time) {
	totals, contained := retiredTotals(c.Status.Retired)
	for i := range states {
		state := &states[i]
		account := state.Account(c.UID)
		if account == nil || contained[state.UID] {
			continue
		}
		v1alpha1.AddCounts(&totals, account.Counts)
		if !seen[state.UID].late(now) {
			v1alpha1.AddRates(&rates, account.Counts)
		}
		if t := state.LastReported(); !t.IsZero() && (last == nil || last.Time.Before(t)) {
			last = &metav1.Time{Time: t}
		}
	}
	return totals, rates, last
}

// nodeSummary collects the results of the nodes, which are added one after another.
type nodeSummary struct {
	invalid           error // the error of the selector
	nodes             v1alpha1.NodeNumbers
	interfaces        v1alpha1.InterfaceNumbers
	pending           []string // nodes whose agent has not applied the spec yet
	leaving           []string // nodes that are no longer selected and still count
	leftOut           []string // nodes that match the selector, and on which no agent can run
	late              []string // nodes that have not reported in time
	failures          []v1alpha1.Failure
	unlisted          int           // failures of interfaces that their node states do not list
	skipped           []string      // node/interface, those that the node states list
	fellBackToGeneric []string      // interfaces in generic mode because native mode was refused
	countDecrypted    []string      // interfaces on which packets of IPsec tunnels count twice
	countAggregates   []string      // interfaces on which several frames can count as one packet
	reportInterval    time.Duration // the longest
}

// node adds a selected node. state is nil if the node has no node state yet.
func (s *nodeSummary) node(c *v1alpha1.XDPCounter, name string, state *v1alpha1.XDPNodeState, seen map[types.UID]sighting, now time.Time) {
	s.nodes.Selected++
	if state == nil {
		s.pending = append(s.pending, name)
		return
	}
	s.reportInterval = max(s.reportInterval, state.ReportInterval())
	if report := seen[state.UID]; report.late(now) {
		s.nodes.Failed++
		s.late = append(s.late, name)
		s.failures = append(s.failures, lateFailure(state, report))
		return
	}
	if !state.Follows(c) {
		s.pending = append(s.pending, name)
		return
	}
	onNode := summarizeInterfaces(state, c.UID)
	s.interfaces.Native += onNode.native
	s.interfaces.Generic += onNode.generic
	s.interfaces.Attached += onNode.native + onNode.generic
	s.interfaces.Failed += int32(len(onNode.failed)) + onNode.omitted.Failed
	s.interfaces.Skipped += int32(len(onNode.skipped)) + onNode.omitted.Skipped
	s.unlisted += int(onNode.omitted.Failed)
	for _, i := range onNode.skipped {
		s.skipped = append(s.skipped, onNodeText(name, i.Name))
	}
	for _, i := range onNode.fellBackToGeneric {
		s.fellBackToGeneric = append(s.fellBackToGeneric, onNodeText(name, i.Name)+" ("+i.Reason+")")
	}
	for _, i := range onNode.countDecrypted {
		s.countDecrypted = append(s.countDecrypted, onNodeText(name, i.Name))
	}
	for _, i := range onNode.countAggregates {
		s.countAggregates = append(s.countAggregates, onNodeText(name, i.Name))
	}
	switch {
	case len(onNode.failed) > 0:
		s.nodes.Failed++
		for _, i := range onNode.failed {
			s.failures = append(s.failures, v1alpha1.Failure{Node: name, Interface: i.Name, Reason: i.Reason, Message: i.Message})
		}
	case onNode.pending:
		s.pending = append(s.pending, name)
	case onNode.native+onNode.generic == 0:
		s.nodes.Failed++
		cause := "spec.interfaces selects none of its interfaces"
		if len(onNode.empty) > 0 {
			cause = "spec.interfaces selects only interfaces without members: " + format.FirstFew(onNode.empty)
		}
		s.failures = append(s.failures, v1alpha1.Failure{
			Node: name, Reason: v1alpha1.ReasonNoInterfacesMatched,
			Message: v1alpha1.FailureMessage(v1alpha1.ReasonNoInterfacesMatched, cause, ""),
		})
	default:
		s.nodes.Ready++
	}
}

// left adds a node that is not selected, if its agent has not detached everything yet. A node that is late is not waited for.
func (s *nodeSummary) left(c *v1alpha1.XDPCounter, state *v1alpha1.XDPNodeState, report sighting, now time.Time) {
	if report.late(now) {
		return
	}
	if f := summarizeInterfaces(state, c.UID); f.native+f.generic > 0 || f.pending {
		s.leaving = append(s.leaving, state.Name)
	}
}

// interfaceSummary collects the interfaces of one counter on one node.
type interfaceSummary struct {
	native, generic   int32
	pending           bool
	failed            []v1alpha1.NodeInterface
	skipped           []v1alpha1.NodeInterface
	empty             []string                   // bonds and teams without members
	fellBackToGeneric []v1alpha1.NodeInterface   // in generic mode because native mode was refused
	countDecrypted    []v1alpha1.NodeInterface   // in generic mode, where packets of IPsec tunnels count twice
	countAggregates   []v1alpha1.NodeInterface   // where several frames can count as one packet
	omitted           v1alpha1.OmittedInterfaces // not in the lists above. There is at least one of each kind in them
}

// summarizeInterfaces returns the interfaces of the counter on the node.
func summarizeInterfaces(state *v1alpha1.XDPNodeState, uid types.UID) (f interfaceSummary) {
	for _, i := range state.Status.Interfaces {
		if !slices.Contains(i.Counters, uid) {
			continue
		}
		switch {
		case i.State == v1alpha1.InterfaceAttached && i.Mode == v1alpha1.AttachGeneric:
			f.generic++
			switch i.Reason {
			case "", v1alpha1.ReasonGenericIsCheaper:
			case v1alpha1.ReasonDecryptedPacketsCounted:
				f.countDecrypted = append(f.countDecrypted, i)
			case v1alpha1.ReasonAggregatedFrames:
				f.countAggregates = append(f.countAggregates, i)
			default:
				f.fellBackToGeneric = append(f.fellBackToGeneric, i)
			}
		case i.State == v1alpha1.InterfaceAttached:
			f.native++
			if i.Reason == v1alpha1.ReasonAggregatedFrames {
				f.countAggregates = append(f.countAggregates, i)
			}
		case i.Reason == v1alpha1.ReasonNoMembers: // it receives no frames
			f.empty = append(f.empty, i.Name)
		case i.State == v1alpha1.InterfaceSkipped:
			f.skipped = append(f.skipped, i)
		case i.State == v1alpha1.InterfaceDetaching || i.Reason == v1alpha1.ReasonPending:
			f.pending = true
		default:
			f.failed = append(f.failed, i)
		}
	}
	if at := slices.IndexFunc(state.Status.OmittedInterfaces, func(o v1alpha1.OmittedInterfaces) bool { return o.UID == uid }); at >= 0 {
		f.omitted = state.Status.OmittedInterfaces[at]
		f.pending = f.pending || f.omitted.Pending > 0
	}
	return f
}

// onNodeText returns node/interface for a message.
func onNodeText(node, iface string) string { return node + "/" + format.Printable(iface) }

// sort sorts all lists. Caches list objects in random order, and the status must not change with it.
func (s *nodeSummary) sort() {
	for _, names := range [][]string{s.pending, s.leaving, s.leftOut, s.late, s.skipped, s.fellBackToGeneric, s.countDecrypted, s.countAggregates} {
		slices.Sort(names)
	}
	slices.SortStableFunc(s.failures, func(a, b v1alpha1.Failure) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Interface, b.Interface))
	})
}
