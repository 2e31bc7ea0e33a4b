// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// now is the time of the tests, born the creation time of their objects.
var (
	now  = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	born = now.Add(-time.Hour)
)

// counterBuilder builds an XDPCounter of generation 2 whose UID is its name.
type counterBuilder struct{ c v1alpha1.XDPCounter }

func counter(name string) counterBuilder {
	return counterBuilder{v1alpha1.XDPCounter{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Generation: 2, CreationTimestamp: metav1.NewTime(born)},
		Spec:       v1alpha1.XDPCounterSpec{AttachMode: v1alpha1.AttachAuto, ReportInterval: metav1.Duration{Duration: 10 * time.Second}},
	}}
}

func (b counterBuilder) Pool(pool string) counterBuilder {
	b.c.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"pool": pool}}
	return b
}

func (b counterBuilder) Selector(key string, operator metav1.LabelSelectorOperator, values ...string) counterBuilder {
	b.c.Spec.NodeSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: key, Operator: operator, Values: values}}}
	return b
}

func (b counterBuilder) Interfaces(names ...v1alpha1.InterfacePattern) counterBuilder {
	b.c.Spec.Interfaces = &v1alpha1.InterfaceSelector{Names: names}
	return b
}

func (b counterBuilder) Every(interval time.Duration) counterBuilder {
	b.c.Spec.ReportInterval.Duration = interval
	return b
}

func (b counterBuilder) Sharing() counterBuilder {
	b.c.Spec.Coexistence = v1alpha1.CoexistenceDispatcher
	return b
}

func (b counterBuilder) Suspended() counterBuilder { b.c.Spec.Suspend = true; return b }

func (b counterBuilder) Younger() counterBuilder {
	b.c.CreationTimestamp = metav1.NewTime(born.Add(time.Minute))
	return b
}

func (b counterBuilder) Retired(r v1alpha1.Retired) counterBuilder { b.c.Status.Retired = &r; return b }

func (b counterBuilder) Reported(protocols ...v1alpha1.ProtocolCounts) counterBuilder {
	b.c.Status.Protocols = protocols
	return b
}

func (b counterBuilder) Obj() v1alpha1.XDPCounter { return *b.c.DeepCopy() }

func node(name, pool string) corev1.Node {
	return corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pool": pool}}}
}

// labelled returns the node with more labels.
func labelled(n corev1.Node, labels map[string]string) corev1.Node {
	maps.Copy(n.Labels, labels)
	return n
}

// windows returns a Windows node.
func windows(name, pool string) corev1.Node {
	return labelled(node(name, pool), map[string]string{corev1.LabelOSStable: "windows"})
}

// unreachable returns the node as unreachable since a time.
func unreachable(n corev1.Node, since time.Time) corev1.Node {
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Reason: "NodeStatusUnknown", LastTransitionTime: metav1.NewTime(since)}}
	return n
}

// stateBuilder builds a node state whose agent reported a second ago. The UID is "uid-" and the name of the node.
type stateBuilder struct{ s v1alpha1.XDPNodeState }

func state(node string) stateBuilder {
	reported := metav1.NewMicroTime(now.Add(-time.Second))
	return stateBuilder{v1alpha1.XDPNodeState{
		ObjectMeta: metav1.ObjectMeta{Name: node, UID: types.UID("uid-" + node), Generation: 3, CreationTimestamp: metav1.NewTime(born)},
		Spec:       v1alpha1.XDPNodeStateSpec{ReportInterval: metav1.Duration{Duration: 10 * time.Second}},
		Status:     v1alpha1.XDPNodeStateStatus{ObservedGeneration: 3, ReportTime: &reported},
	}}
}

// For lists a counter and adds an account with that many TCP packets of 100 bytes, and no present traffic.
func (b stateBuilder) For(uid string, packets int64) stateBuilder {
	b = b.Listing(uid)
	account := v1alpha1.CounterAccount{UID: types.UID(uid), Generation: 2}
	if packets > 0 {
		account.Counts = tcp(packets)
	}
	b.s.Status.Accounts = append(b.s.Status.Accounts, account)
	return b
}

// Moving sets the rates of the latest account to 5 packets per second.
func (b stateBuilder) Moving() stateBuilder {
	account := &b.s.Status.Accounts[len(b.s.Status.Accounts)-1]
	account.Counts[0].PPS, account.Counts[0].BPS = 5, 4000
	return b
}

func (b stateBuilder) Every(interval time.Duration) stateBuilder {
	b.s.Spec.ReportInterval.Duration = interval
	return b
}

// SpecUpdatedAt sets the time when the spec was changed.
func (b stateBuilder) SpecUpdatedAt(t time.Time) stateBuilder {
	b.s.Spec.UpdateTime = &metav1.Time{Time: t}
	return b
}

func (b stateBuilder) Listing(uid string) stateBuilder {
	b.s.Spec.Counters = append(b.s.Spec.Counters, v1alpha1.NodeCounter{Name: uid, UID: types.UID(uid), Generation: 2})
	return b
}

func (b stateBuilder) Attached(name string, mode v1alpha1.AttachMode, uids ...types.UID) stateBuilder {
	b.s.Status.Interfaces = append(b.s.Status.Interfaces, v1alpha1.NodeInterface{Name: name, State: v1alpha1.InterfaceAttached, Mode: mode, Counters: uids})
	return b
}

// FellBack adds an interface that is counted in generic mode because native mode was refused for the reason.
func (b stateBuilder) FellBack(name, reason string, uids ...types.UID) stateBuilder {
	b.s.Status.Interfaces = append(b.s.Status.Interfaces, v1alpha1.NodeInterface{
		Name: name, State: v1alpha1.InterfaceAttached, Mode: v1alpha1.AttachGeneric, Reason: reason, Message: "why", Counters: uids,
	})
	return b
}

func (b stateBuilder) Failed(name, reason string, uids ...types.UID) stateBuilder {
	b.s.Status.Interfaces = append(b.s.Status.Interfaces, v1alpha1.NodeInterface{Name: name, State: v1alpha1.InterfaceFailed, Reason: reason, Message: "why", Counters: uids})
	return b
}

func (b stateBuilder) Skipped(name string, uids ...types.UID) stateBuilder {
	b.s.Status.Interfaces = append(b.s.Status.Interfaces, v1alpha1.NodeInterface{Name: name, State: v1alpha1.InterfaceSkipped, Reason: v1alpha1.ReasonCountedElsewhere, Counters: uids})
	return b
}

func (b stateBuilder) Empty(name string, uids ...types.UID) stateBuilder {
	b.s.Status.Interfaces = append(b.s.Status.Interfaces, v1alpha1.NodeInterface{Name: name, State: v1alpha1.InterfaceSkipped, Reason: v1alpha1.ReasonNoMembers, Counters: uids})
	return b
}

func (b stateBuilder) Omitted(numbers ...v1alpha1.OmittedInterfaces) stateBuilder {
	b.s.Status.OmittedInterfaces = numbers
	return b
}

func (b stateBuilder) Behind() stateBuilder { b.s.Generation++; return b }

func (b stateBuilder) SilentSince(t time.Time) stateBuilder {
	reported := metav1.NewMicroTime(t)
	b.s.Status.ReportTime = &reported
	return b
}

// StoredAt sets when the API server stored the report.
func (b stateBuilder) StoredAt(t time.Time) stateBuilder {
	b.s.ManagedFields = []metav1.ManagedFieldsEntry{{Subresource: "status", Time: &metav1.Time{Time: t}}}
	return b
}

func (b stateBuilder) NeverReported() stateBuilder {
	b.s.Status = v1alpha1.XDPNodeStateStatus{}
	return b
}

func (b stateBuilder) BornAt(t time.Time) stateBuilder {
	b.s.CreationTimestamp = metav1.NewTime(t)
	return b
}

// Obj returns the state, with status.nextReportTime as an agent reports it.
func (b stateBuilder) Obj() v1alpha1.XDPNodeState {
	s := *b.s.DeepCopy()
	if reported := s.Status.ReportTime; reported != nil {
		next := metav1.NewTime(v1alpha1.NextReportTime(reported.Time, s.ReportInterval(), s.Status.Accounts))
		s.Status.NextReportTime = &next
	}
	return s
}

// seenInTime returns what a controller knows that has seen each report when it was made, each spec when it was changed, and each
// node when it became unreachable. All clocks agree.
func seenInTime(nodes []corev1.Node, states []v1alpha1.XDPNodeState) map[types.UID]sighting {
	seen := map[types.UID]sighting{}
	for i := range states {
		state := &states[i]
		unreachable := unreachableNodes(nodes)[state.Name]
		var s sighting
		reported := state.CreationTimestamp.Time
		if t := state.Status.ReportTime; t != nil {
			reported = t.Time
		}
		if unreachable.Before(reported) {
			s = s.withNode(unreachable, unreachable)
		}
		if following := state.DeepCopy(); state.Status.ReportTime != nil {
			following.Generation = state.Status.ObservedGeneration
			s = s.withReport(following, reported)
		}
		s = s.withReport(state, later(reported, state.SpecUpdateTime()))
		seen[state.UID] = s.withNode(unreachable, unreachable)
	}
	return seen
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// statusInTime returns the status that a controller with the knowledge of seenInTime writes.
func statusInTime(c *v1alpha1.XDPCounter, nodes []corev1.Node, states []v1alpha1.XDPNodeState, now time.Time) v1alpha1.XDPCounterStatus {
	return summarize(c, nodes, states, seenInTime(nodes, states), now)
}

func tcp(packets int64) v1alpha1.Counts {
	return v1alpha1.Counts{{Class: "IPv4/TCP", Packets: packets, Bytes: 100 * packets}}
}

// nodesWithStates returns that many nodes and their states with that many counters, as they are in the caches.
func nodesWithStates(nodes, counters int) (list []corev1.Node, states []v1alpha1.XDPNodeState) {
	for i := range nodes {
		name := fmt.Sprintf("node-%04d", i)
		list = append(list, node(name, "edge"))
		s := reporting(name, counters, 1, 6)
		stripNodeState(s)
		states = append(states, *s)
	}
	return list, states
}
