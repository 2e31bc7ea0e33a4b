package main

import (
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/watch"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// world is what is known of the cluster.
type world struct {
	counters map[string]v1alpha1.XDPCounter // nil until they were listed
	nodes    map[string]reports             // by node; nil until they were listed
	trouble  map[string]error               // by collection: why it is not known what became of it
}

// add takes news in.
func (w *world) add(n news, now time.Time) {
	if n.err != nil {
		if w.trouble == nil {
			w.trouble = map[string]error{}
		}
		w.trouble[n.resource] = n.err
		return
	}
	delete(w.trouble, n.resource)
	switch n.resource {
	case counters:
		if n.all != nil {
			w.setCounters(as[v1alpha1.XDPCounter](n.all.objects))
		} else if c, ok := n.event.Object.(*v1alpha1.XDPCounter); ok && n.event.Type == watch.Deleted {
			delete(w.counters, c.Name)
		} else if ok {
			w.counters[c.Name] = *c
		}
	case nodeStates:
		if n.all != nil {
			w.setNodes(as[v1alpha1.XDPNodeState](n.all.objects), now)
		} else if s, ok := n.event.Object.(*v1alpha1.XDPNodeState); ok && n.event.Type == watch.Deleted {
			delete(w.nodes, s.Name)
		} else if ok {
			w.nodes[s.Name] = w.nodes[s.Name].next(s, now)
		}
	}
}

// setCounters takes in all counters that there are.
func (w *world) setCounters(list []v1alpha1.XDPCounter) {
	w.counters = map[string]v1alpha1.XDPCounter{}
	for _, c := range list {
		w.counters[c.Name] = c
	}
}

// setNodes takes in all node states that there are.
func (w *world) setNodes(list []v1alpha1.XDPNodeState, now time.Time) {
	before := w.nodes
	w.nodes = map[string]reports{}
	for _, s := range list {
		w.nodes[s.Name] = before[s.Name].next(&s, now)
	}
}

// known reports that both collections were listed.
func (w *world) known() bool { return w.counters != nil && w.nodes != nil }

// note says what is wrong with the view of the cluster, "" if nothing is.
func (w *world) note() string {
	var notes []string
	for _, resource := range slices.Sorted(maps.Keys(w.trouble)) {
		if text := w.trouble[resource].Error(); !slices.Contains(notes, text) {
			notes = append(notes, text)
		}
	}
	return strings.Join(notes, "; ")
}
