package controllers

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// maxFailures is how many failures a status lists. How many there are stands in the numbers.
const maxFailures = 10

// summarize returns the status of a counter from the nodes, the node states and the time. Its retired share is
// that of the counter as it is.
func summarize(c *v1alpha1.XDPCounter, nodes []corev1.Node, states []v1alpha1.XDPNodeState, now time.Time) v1alpha1.XDPCounterStatus {
	byName := make(map[string]*v1alpha1.XDPNodeState, len(states))
	for i := range states {
		byName[states[i].Name] = &states[i]
	}
	selector, err := nodeSelector(c)
	s := survey{invalid: err}
	if !c.Spec.Suspend {
		for i := range nodes {
			if selector.Matches(labels.Set(nodes[i].Labels)) {
				s.node(c, nodes[i].Name, byName[nodes[i].Name], now)
			}
		}
	}
	status := v1alpha1.XDPCounterStatus{
		ObservedGeneration: c.Generation,
		Conditions:         slices.Clone(c.Status.Conditions),
		Nodes:              &s.nodes,
		Interfaces:         &s.interfaces,
		Retired:            c.Status.Retired.DeepCopy(),
		Failures:           s.firstFailures(),
		ReportInterval:     &metav1.Duration{Duration: max(s.reportInterval, wantedInterval(c))},
	}
	ready := s.ready(c)
	ready.ObservedGeneration = c.Generation
	meta.SetStatusCondition(&status.Conditions, ready)

	totals, rate, last := sum(c, states, now)
	// The caches may be behind what was last written. Each figure is a lower bound of the truth, so the larger
	// of two is the better one, and no total ever falls.
	totals = totals.Max(v1alpha1.TotalsOfProtocols(c.Status.Protocols))
	total := totals.Sum()
	status.Total = &v1alpha1.Total{
		Packets:          v1alpha1.Int64(total.Packets),
		Bytes:            v1alpha1.Int64(total.Bytes),
		PacketsPerSecond: rate.PacketsPerSecond,
		BitsPerSecond:    rate.BitsPerSecond,
	}
	status.Families = v1alpha1.FamiliesOf(totals)
	status.Protocols = v1alpha1.ProtocolsOf(totals)
	status.LastReportTime = last
	status.Summary = inWords(status)
	return status
}

// sum adds up the accounts of all node states, of nodes that are no longer selected too, and the retired share.
func sum(c *v1alpha1.XDPCounter, states []v1alpha1.XDPNodeState, now time.Time) (totals traffic.Totals, rate v1alpha1.Total, last *metav1.Time) {
	totals, contained := retiredTotals(c.Status.Retired)
	for i := range states {
		state := &states[i]
		account := accountOf(state, c.UID)
		if account == nil || contained[state.UID] {
			continue
		}
		totals = totals.Plus(v1alpha1.TotalsOf(account.Counts))
		if !silent(state, now) {
			rate.PacketsPerSecond += account.PacketsPerSecond
			rate.BitsPerSecond += account.BitsPerSecond
		}
		if t := state.Status.ReportTime; t != nil && (last == nil || last.Time.Before(t.Time)) {
			last = &metav1.Time{Time: t.Time}
		}
	}
	return totals, rate, last
}

// survey is what is found out about the selected nodes, one after the other.
type survey struct {
	invalid        error // what is wrong with the selector
	nodes          v1alpha1.NodeNumbers
	interfaces     v1alpha1.InterfaceNumbers
	pending        []string // nodes whose agent has yet to take the spec up
	failures       []v1alpha1.Failure
	skipped        []string      // node/interface
	fallen         []string      // interfaces that are counted in generic mode since native was refused
	reportInterval time.Duration // the longest
}

// node adds one selected node. state is nil if the node has none yet.
func (s *survey) node(c *v1alpha1.XDPCounter, name string, state *v1alpha1.XDPNodeState, now time.Time) {
	s.nodes.Selected++
	if state != nil {
		s.reportInterval = max(s.reportInterval, state.Spec.ReportInterval.Duration)
	}
	switch {
	case state != nil && silent(state, now):
		s.nodes.Failed++
		message := "its agent has never reported: is the agent's pod running on the node?"
		if t := state.Status.ReportTime; t != nil {
			message = fmt.Sprintf("its agent has not reported since %s: is the agent's pod running on the node?", t.UTC().Format(time.RFC3339))
		}
		s.failures = append(s.failures, v1alpha1.Failure{Node: name, Reason: v1alpha1.ReasonAgentNotReporting, Message: message})
		return
	case !follows(c, state):
		s.pending = append(s.pending, name)
		return
	}
	found := tally(state, c.UID)
	s.interfaces.Native += found.native
	s.interfaces.Generic += found.generic
	s.interfaces.Attached += found.native + found.generic
	s.interfaces.Failed += int32(len(found.failed))
	s.interfaces.Skipped += int32(len(found.skipped))
	for _, i := range found.skipped {
		s.skipped = append(s.skipped, name+"/"+i.Name)
	}
	for _, i := range found.fallen {
		s.fallen = append(s.fallen, name+"/"+i.Name+" ("+i.Reason+")")
	}
	switch {
	case len(found.failed) > 0:
		s.nodes.Failed++
		for _, i := range found.failed {
			s.failures = append(s.failures, v1alpha1.Failure{Node: name, Interface: i.Name, Reason: i.Reason, Message: i.Message})
		}
	case found.pending:
		s.pending = append(s.pending, name)
	case found.native+found.generic == 0:
		s.nodes.Failed++
		s.failures = append(s.failures, v1alpha1.Failure{
			Node: name, Reason: v1alpha1.ReasonNoInterfacesMatched,
			Message: "spec.interfaces selects none of its interfaces",
		})
	default:
		s.nodes.Ready++
	}
}

// found is what one counter has on one node.
type found struct {
	native, generic int32
	pending         bool
	failed          []v1alpha1.NodeInterface
	skipped         []v1alpha1.NodeInterface
	fallen          []v1alpha1.NodeInterface // that Auto counts in generic mode, since native was refused
}

func tally(state *v1alpha1.XDPNodeState, uid types.UID) (f found) {
	for _, i := range state.Status.Interfaces {
		if !slices.Contains(i.Counters, uid) {
			continue
		}
		switch {
		case i.State == v1alpha1.InterfaceAttached && i.Mode == v1alpha1.AttachGeneric:
			f.generic++
			if i.Reason != "" {
				f.fallen = append(f.fallen, i)
			}
		case i.State == v1alpha1.InterfaceAttached:
			f.native++
		case i.State == v1alpha1.InterfaceSkipped:
			f.skipped = append(f.skipped, i)
		case i.State == v1alpha1.InterfaceDetaching || i.Reason == v1alpha1.ReasonPending:
			f.pending = true
		default:
			f.failed = append(f.failed, i)
		}
	}
	return f
}

// follows reports whether the node's agent works by the counter's present spec.
func follows(c *v1alpha1.XDPCounter, state *v1alpha1.XDPNodeState) bool {
	if state == nil {
		return false
	}
	told := slices.ContainsFunc(state.Spec.Counters, func(n v1alpha1.NodeCounter) bool {
		return n.UID == c.UID && n.Generation == c.Generation
	})
	if !told {
		return false
	}
	if state.Status.ObservedGeneration == state.Generation {
		return true
	}
	account := accountOf(state, c.UID) // the node state may have changed for another counter's sake
	return account != nil && account.Generation == c.Generation
}

// silent reports whether the node's agent should have reported by now and has not.
func silent(state *v1alpha1.XDPNodeState, now time.Time) bool {
	last := state.CreationTimestamp.Time
	if t := state.Status.ReportTime; t != nil {
		last = t.Time
	}
	return now.Sub(last) > v1alpha1.SilenceLimit(state.Spec.ReportInterval.Duration)
}

func accountOf(state *v1alpha1.XDPNodeState, uid types.UID) *v1alpha1.CounterAccount {
	for i := range state.Status.Accounts {
		if state.Status.Accounts[i].UID == uid {
			return &state.Status.Accounts[i]
		}
	}
	return nil
}

func (s *survey) firstFailures() []v1alpha1.Failure {
	slices.SortStableFunc(s.failures, func(a, b v1alpha1.Failure) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Interface, b.Interface))
	})
	return s.failures[:min(len(s.failures), maxFailures)]
}

// ready returns the Ready condition.
func (s *survey) ready(c *v1alpha1.XDPCounter) metav1.Condition {
	condition := func(status metav1.ConditionStatus, reason, format string, args ...any) metav1.Condition {
		return metav1.Condition{Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: fmt.Sprintf(format, args...)}
	}
	var culprits []string
	same := true // all failures are of one reason
	for _, f := range s.failures {
		culprit := f.Node
		if f.Interface != "" {
			culprit += "/" + f.Interface
		}
		culprits = append(culprits, culprit+" ("+f.Reason+")")
		same = same && f.Reason == s.failures[0].Reason
	}
	switch {
	case c.Spec.Suspend:
		return condition(metav1.ConditionTrue, v1alpha1.ReasonSuspended, "counting is suspended; the totals are kept")
	case s.invalid != nil:
		return condition(metav1.ConditionFalse, v1alpha1.ReasonInvalidNodeSelector, "%v", s.invalid)
	case s.nodes.Selected == 0:
		return condition(metav1.ConditionFalse, v1alpha1.ReasonNoNodesSelected, "spec.nodeSelector selects no node")
	case len(s.failures) == 0 && len(s.pending) > 0:
		return condition(metav1.ConditionUnknown, v1alpha1.ReasonPending, "waiting for the agents of %d of %d nodes: %s",
			len(s.pending), s.nodes.Selected, v1alpha1.FirstFew(s.pending))
	case len(s.failures) == 0:
		also := ""
		if len(s.fallen) > 0 {
			slices.Sort(s.fallen)
			also = fmt.Sprintf("; %d in generic mode, where native was refused: %s", len(s.fallen), v1alpha1.FirstFew(s.fallen))
		}
		if len(s.skipped) > 0 {
			also += fmt.Sprintf("; the frames of %d more are counted there too: %s", len(s.skipped), v1alpha1.FirstFew(s.skipped))
		}
		return condition(metav1.ConditionTrue, v1alpha1.ReasonAllInterfacesAttached, "%d interfaces on %d nodes are being counted%s",
			s.interfaces.Attached, s.nodes.Ready, also)
	case same && s.failures[0].Reason == v1alpha1.ReasonNoInterfacesMatched && s.interfaces.Attached == 0:
		return condition(metav1.ConditionFalse, v1alpha1.ReasonNoInterfacesMatched, "spec.interfaces selects no interface of %d nodes: %s",
			len(s.failures), v1alpha1.FirstFew(nodesOf(s.failures)))
	case same && s.failures[0].Reason == v1alpha1.ReasonAgentNotReporting:
		return condition(metav1.ConditionFalse, v1alpha1.ReasonAgentNotReporting, "the agents of %d of %d nodes are silent: %s",
			len(s.failures), s.nodes.Selected, v1alpha1.FirstFew(nodesOf(s.failures)))
	}
	reason := v1alpha1.ReasonPartiallyAttached
	if s.interfaces.Attached == 0 {
		reason = v1alpha1.ReasonNothingAttached
	}
	return condition(metav1.ConditionFalse, reason, "%d of %d nodes have failures: %s", s.nodes.Failed, s.nodes.Selected, v1alpha1.FirstFew(culprits))
}

func nodesOf(failures []v1alpha1.Failure) []string {
	var nodes []string
	for _, f := range failures {
		nodes = append(nodes, f.Node)
	}
	return nodes
}
