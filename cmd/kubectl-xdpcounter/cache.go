// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/watch"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// objectCache holds the last known state of all XDPCounters and XDPNodeStates.
type objectCache struct {
	counters map[string]v1alpha1.XDPCounter // by name; nil until they are listed
	nodes    map[string]reports             // by node; nil until they are listed
	errs     map[string]error               // by resource: why its objects may be outdated
}

// add applies an update.
func (o *objectCache) add(u update, now time.Time) {
	if u.err != nil {
		if o.errs == nil {
			o.errs = map[string]error{}
		}
		o.errs[u.resource] = u.err
		return
	}
	delete(o.errs, u.resource)
	switch u.resource {
	case counterResource:
		if u.all != nil {
			o.setCounters(as[v1alpha1.XDPCounter](u.all.objects))
		} else if c, ok := u.event.Object.(*v1alpha1.XDPCounter); ok && u.event.Type == watch.Deleted {
			delete(o.counters, c.Name)
		} else if ok {
			o.counters[c.Name] = *c
		}
	case nodeStateResource:
		if u.all != nil {
			o.setNodes(as[v1alpha1.XDPNodeState](u.all.objects), now)
		} else if s, ok := u.event.Object.(*v1alpha1.XDPNodeState); ok && u.event.Type == watch.Deleted {
			delete(o.nodes, s.Name)
		} else if ok {
			o.nodes[s.Name] = o.nodes[s.Name].next(s, now)
		}
	}
}

// setCounters replaces all counters.
func (o *objectCache) setCounters(list []v1alpha1.XDPCounter) {
	o.counters = map[string]v1alpha1.XDPCounter{}
	for _, c := range list {
		o.counters[c.Name] = c
	}
}

// setNodes replaces all node states.
func (o *objectCache) setNodes(list []v1alpha1.XDPNodeState, now time.Time) {
	before := o.nodes
	o.nodes = map[string]reports{}
	for _, s := range list {
		o.nodes[s.Name] = before[s.Name].next(&s, now)
	}
}

// synced reports whether both resources are listed.
func (o *objectCache) synced() bool { return o.counters != nil && o.nodes != nil }

// note returns why the objects may be outdated, or "" if they are not.
func (o *objectCache) note() string {
	var notes []string
	for _, resource := range slices.Sorted(maps.Keys(o.errs)) {
		if text := o.errs[resource].Error(); !slices.Contains(notes, text) {
			notes = append(notes, text)
		}
	}
	return strings.Join(notes, "; ")
}
