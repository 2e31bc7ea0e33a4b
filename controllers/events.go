package controllers

import (
	"cmp"
	"fmt"
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

// What happens to the interfaces of a counter is told in events on the XDPCounter. They follow from two levels, what
// was told last and what is, and not from the reports in between: one event tells all that is of one kind, however
// many nodes it concerns, and none is sent while nothing changes. The controller sends them, so agents need no right
// to.

// place is an interface of a node.
type place struct{ node, name string }

// level is how one counter stands at one place: counted by a map, or failed for a reason. The zero value says that the
// agent is still about to change it.
type level struct {
	counted int64  // the kernel's ID of the map
	failed  string // the reason
}

// levelsOf returns how a counter stands wherever it selects an interface.
func levelsOf(uid types.UID, states []v1alpha1.XDPNodeState) map[place]level {
	levels := map[place]level{}
	for i := range states {
		for _, n := range states[i].Status.Interfaces {
			if !slices.Contains(n.Counters, uid) || n.State == v1alpha1.InterfaceSkipped {
				continue
			}
			at := place{states[i].Name, n.Name}
			switch {
			case n.State == v1alpha1.InterfaceAttached:
				levels[at] = level{counted: n.Map}
			case n.State == v1alpha1.InterfaceFailed && n.Reason != v1alpha1.ReasonPending:
				levels[at] = level{failed: n.Reason}
			default:
				if _, known := levels[at]; !known && n.Name != "" {
					levels[at] = level{}
				}
			}
		}
	}
	return levels
}

// told holds, by name of the counter, the levels of which events have told. A counter on every interface of a large
// cluster costs some 100 bytes for each.
type told struct {
	mu sync.Mutex
	by map[string]memory
}

type memory struct {
	uid    types.UID
	levels map[place]level
}

// next returns what happened at a counter since it was last asked, and remembers that it is told. c is the counter with
// the status that was written last: what an earlier controller wrote it has told. While that status is not settled
// nothing is told, so that one event tells what came of it.
func (t *told) next(c *v1alpha1.XDPCounter, now map[place]level, settled bool) []transition {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		t.by = map[string]memory{}
	}
	before := t.by[c.Name]
	if before.uid != c.UID {
		before = memory{c.UID, toldBy(c.Status, now)}
	}
	var list []transition
	if settled {
		before.levels, list = transitions(before.levels, now)
	}
	t.by[c.Name] = before
	return list
}

func (t *told) forget(counter string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.by, counter)
}

// toldBy returns the levels of which an earlier controller has told, as far as the status that it wrote last shows
// them: its failures, and if it knew of interfaces that are counted, those that are now.
func toldBy(was v1alpha1.XDPCounterStatus, now map[place]level) map[place]level {
	before := map[place]level{}
	for at, l := range now {
		if l.counted != 0 && was.Interfaces != nil && was.Interfaces.Attached > 0 || l.failed != "" && len(was.Failures) == maxFailures {
			before[at] = l
		}
	}
	for _, f := range was.Failures {
		if f.Interface != "" {
			before[place{f.Node, f.Interface}] = level{failed: f.Reason}
		}
	}
	return before
}

// transition is what happened to a number of interfaces.
type transition struct {
	Kind   string // EventTypeNormal or EventTypeWarning
	Reason string
	Node   string // where it happened, "" if on several
	Note   string
}

// change is one kind of transition.
type change struct{ reason, kind, one, many string }

// changes are the kinds in the order in which they are told.
var changes = []change{
	{v1alpha1.EventInterfacesDetached, corev1.EventTypeNormal, "is counted no more", "are counted no more"},
	{v1alpha1.EventInterfacesLost, corev1.EventTypeWarning, "was lost and is not counted", "were lost and are not counted"},
	{v1alpha1.EventAttachFailed, corev1.EventTypeWarning, "cannot be counted", "cannot be counted"},
	{v1alpha1.EventInterfacesAttached, corev1.EventTypeNormal, "is being counted", "are being counted"},
	{v1alpha1.EventInterfacesReattached, corev1.EventTypeNormal, "is being counted again", "are being counted again"},
}

// transitions returns what happened between two levels. after is the later one, with what is about to change as it was
// told before: that is told when it has.
func transitions(before, now map[place]level) (after map[place]level, list []transition) {
	if maps.Equal(before, now) { // as a rule
		return before, nil
	}
	after = maps.Clone(now)
	mapsBefore, mapsNow := countingMaps(before), countingMaps(now)
	happened := map[string][]place{}
	add := func(reason string, at place) { happened[reason] = append(happened[reason], at) }
	for at, was := range before {
		is, there := now[at]
		switch {
		case there && is == level{}:
			after[at] = was
		case !there && was.counted != 0 && !mapsNow[mapOn{at.node, was.counted}]:
			add(v1alpha1.EventInterfacesDetached, at)
		}
	}
	for at, is := range now {
		was := before[at]
		switch {
		case is == was || is == level{}:
		case is.counted != 0 && was == level{}:
			if !mapsBefore[mapOn{at.node, is.counted}] { // else it was renamed
				add(v1alpha1.EventInterfacesAttached, at)
			}
		case is.counted != 0:
			add(v1alpha1.EventInterfacesReattached, at)
		case was.counted != 0:
			add(v1alpha1.EventInterfacesLost, at)
		default:
			add(v1alpha1.EventAttachFailed, at)
		}
	}
	for _, c := range changes {
		if places := happened[c.reason]; len(places) > 0 {
			list = append(list, transition{Kind: c.kind, Reason: c.reason, Node: onlyNode(places), Note: c.note(places, now)})
		}
	}
	return after, list
}

func (c change) note(places []place, now map[place]level) string {
	slices.SortFunc(places, func(a, b place) int { return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(a.name, b.name)) })
	var texts []string
	for _, at := range places {
		text := at.node + "/" + at.name
		if reason := now[at].failed; reason != "" {
			text += " (" + reason + ")"
		}
		texts = append(texts, text)
	}
	if len(texts) == 1 {
		return "1 interface " + c.one + ": " + texts[0]
	}
	return fmt.Sprintf("%d interfaces %s: %s", len(texts), c.many, format.FirstFew(texts))
}

func onlyNode(places []place) string {
	if slices.ContainsFunc(places, func(p place) bool { return p.node != places[0].node }) {
		return ""
	}
	return places[0].node
}

// mapOn is a map of a node.
type mapOn struct {
	node string
	id   int64
}

func countingMaps(levels map[place]level) map[mapOn]bool {
	counting := make(map[mapOn]bool, len(levels))
	for at, l := range levels {
		if l.counted != 0 {
			counting[mapOn{at.node, l.counted}] = true
		}
	}
	return counting
}

// send sends the events. Of those with the same reason and node within minutes the API server keeps the first and
// counts the others (events.k8s.io/v1 series).
func send(to events.EventRecorder, c *v1alpha1.XDPCounter, list []transition) {
	for _, t := range list {
		var related runtime.Object
		if t.Node != "" {
			related = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: t.Node}}
		}
		to.Eventf(c, related, t.Kind, t.Reason, "CountInterfaces", "%s", t.Note)
	}
}
