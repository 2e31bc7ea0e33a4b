// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/internal/format"
)

// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Events on an XDPCounter report what happened to its interfaces. They are computed from two states, the one of the last
// events and the present one, and not from the reports in between: there is one event per kind of change, however many nodes
// it affects, and none while nothing changes. The controller sends all events, so agents need no permission to.

// interfaceRef identifies an interface of a node.
type interfaceRef struct{ node, name string }

// attachState is the state of one counter on one interface: counted by a map, or failed with a reason. The zero value means
// that the agent is still working on it.
type attachState struct {
	mapID  int64  // the kernel's ID of the map, 0 if the interface is not counted
	failed string // the reason
}

// attachStates returns the state of a counter on each interface that it selects.
func attachStates(uid types.UID, states []v1alpha1.XDPNodeState) map[interfaceRef]attachState {
	list := map[interfaceRef]attachState{}
	for i := range states {
		for _, n := range states[i].Status.Interfaces {
			if !slices.Contains(n.Counters, uid) || n.State == v1alpha1.InterfaceSkipped {
				continue
			}
			ref := interfaceRef{states[i].Name, n.Name}
			switch {
			case n.State == v1alpha1.InterfaceAttached:
				list[ref] = attachState{mapID: n.Map}
			case n.State == v1alpha1.InterfaceFailed && n.Reason != v1alpha1.ReasonPending:
				list[ref] = attachState{failed: n.Reason}
			default:
				if _, known := list[ref]; !known && n.Name != "" {
					list[ref] = attachState{}
				}
			}
		}
	}
	return list
}

// notified holds, by name of the counter, the states that events have reported. It takes about 100 bytes per interface of a
// counter.
type notified struct {
	mu sync.Mutex
	by map[string]notifiedCounter
}

type notifiedCounter struct {
	uid    types.UID
	states map[interfaceRef]attachState
}

// next returns the events for what has changed since the last call, and records it as reported. c is the counter with the
// status that was last written: an earlier controller has sent events for it. While conclusive is false there are no
// events, so that one event reports the result.
func (n *notified) next(c *v1alpha1.XDPCounter, now map[interfaceRef]attachState, conclusive bool) []pendingEvent {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.by == nil {
		n.by = map[string]notifiedCounter{}
	}
	before := n.by[c.Name]
	if before.uid != c.UID {
		before = notifiedCounter{c.UID, notifiedBefore(c.Status, now)}
	}
	var list []pendingEvent
	if conclusive {
		before.states, list = pendingEvents(before.states, now)
	}
	n.by[c.Name] = before
	return list
}

func (n *notified) forget(counter string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.by, counter)
}

// notifiedBefore returns the states that an earlier controller has reported, as far as the status that it wrote shows them:
// the failures, and, if interfaces were counted, those that are counted now.
func notifiedBefore(was v1alpha1.XDPCounterStatus, now map[interfaceRef]attachState) map[interfaceRef]attachState {
	before := map[interfaceRef]attachState{}
	for ref, s := range now {
		if s.mapID != 0 && was.Interfaces != nil && was.Interfaces.Attached > 0 || s.failed != "" && len(was.Failures) == maxFailures {
			before[ref] = s
		}
	}
	for _, f := range was.Failures {
		if f.Interface != "" {
			before[interfaceRef{f.Node, f.Interface}] = attachState{failed: f.Reason}
		}
	}
	return before
}

// pendingEvent is an event to be sent. It is about one or more interfaces.
type pendingEvent struct {
	Kind   string // EventTypeNormal or EventTypeWarning
	Reason string
	Node   string // the node of the interfaces, "" if they are on several
	Note   string
}

// eventTemplate is the text of one kind of event, for one interface and for many.
type eventTemplate struct{ reason, kind, one, many string }

// eventTemplates are the kinds of events, in the order in which they are sent.
var eventTemplates = []eventTemplate{
	{v1alpha1.EventInterfacesDetached, corev1.EventTypeNormal, "interface is no longer counted", "interfaces are no longer counted"},
	{v1alpha1.EventInterfacesLost, corev1.EventTypeWarning, "interface was lost and is not counted", "interfaces were lost and are not counted"},
	{v1alpha1.EventAttachFailed, corev1.EventTypeWarning, "interface cannot be counted", "interfaces cannot be counted"},
	{v1alpha1.EventInterfacesAttached, corev1.EventTypeNormal, "interface is being counted", "interfaces are being counted"},
	{v1alpha1.EventInterfacesReattached, corev1.EventTypeNormal, "interface is being counted again", "interfaces are being counted again"},
}

// pendingEvents returns the events for what has changed from one set of states to another. after is the later set; an
// interface on which the agent is still working has its earlier state there, so that the result is reported when it is known.
func pendingEvents(before, now map[interfaceRef]attachState) (after map[interfaceRef]attachState, list []pendingEvent) {
	if maps.Equal(before, now) { // in most calls
		return before, nil
	}
	after = maps.Clone(now)
	mapsBefore, mapsNow := countingMaps(before), countingMaps(now)
	changed := map[string][]interfaceRef{}
	add := func(reason string, ref interfaceRef) { changed[reason] = append(changed[reason], ref) }
	for ref, was := range before {
		is, exists := now[ref]
		switch {
		case exists && is == attachState{}:
			after[ref] = was
		case !exists && was.mapID != 0 && !mapsNow[nodeMap{ref.node, was.mapID}]:
			add(v1alpha1.EventInterfacesDetached, ref)
		}
	}
	for ref, is := range now {
		was := before[ref]
		switch {
		case is == was || is == attachState{}:
		case is.mapID != 0 && was == attachState{}:
			if !mapsBefore[nodeMap{ref.node, is.mapID}] { // otherwise the interface was renamed
				add(v1alpha1.EventInterfacesAttached, ref)
			}
		case is.mapID != 0:
			add(v1alpha1.EventInterfacesReattached, ref)
		case was.mapID != 0:
			add(v1alpha1.EventInterfacesLost, ref)
		default:
			add(v1alpha1.EventAttachFailed, ref)
		}
	}
	for _, template := range eventTemplates {
		if refs := changed[template.reason]; len(refs) > 0 {
			list = append(list, pendingEvent{Kind: template.kind, Reason: template.reason, Node: onlyNode(refs), Note: template.note(refs, now)})
		}
	}
	return after, list
}

// note returns the text of the event. It names the first few interfaces.
func (t eventTemplate) note(refs []interfaceRef, now map[interfaceRef]attachState) string {
	slices.SortFunc(refs, func(a, b interfaceRef) int {
		return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(a.name, b.name))
	})
	var names []string
	for _, ref := range refs {
		name := onNodeText(ref.node, ref.name)
		if reason := now[ref].failed; reason != "" {
			name += " (" + reason + ")"
		}
		names = append(names, name)
	}
	return format.Count(len(names), t.one, t.many) + ": " + format.FirstFew(names)
}

// onlyNode returns the node of the interfaces, "" if they are on several.
func onlyNode(refs []interfaceRef) string {
	if slices.ContainsFunc(refs, func(r interfaceRef) bool { return r.node != refs[0].node }) {
		return ""
	}
	return refs[0].node
}

// nodeMap identifies a BPF map of a node.
type nodeMap struct {
	node string
	id   int64
}

// countingMaps returns the maps that count in these states.
func countingMaps(states map[interfaceRef]attachState) map[nodeMap]bool {
	counting := make(map[nodeMap]bool, len(states))
	for ref, s := range states {
		if s.mapID != 0 {
			counting[nodeMap{ref.node, s.mapID}] = true
		}
	}
	return counting
}

// send sends the events. If several with the same reason and node are sent within minutes, the API server keeps one of them
// and its number (series of events.k8s.io/v1).
func send(to events.EventRecorder, c *v1alpha1.XDPCounter, list []pendingEvent) {
	for _, e := range list {
		var related runtime.Object
		if e.Node != "" {
			related = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: e.Node}}
		}
		to.Eventf(c, related, e.Kind, e.Reason, "CountInterfaces", "%s", e.Note)
	}
}
