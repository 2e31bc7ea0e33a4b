// SPDX-License-Identifier: Apache-2.0

package links

import (
	"slices"
	"sync"
	"time"
)

// routeCache keeps the default routes while nothing changes them, because reading them means reading all routes. All methods
// may be called concurrently.
//
// The kernel does not report every route that it removes: IPv4 routes disappear silently when their interface goes down, when
// an address is removed, and with their nexthop object. So the routes are read again after each of these, see parseChanges, and
// after maxAge in any case.
type routeCache struct {
	read   func() (defaultRoutes, error)
	maxAge time.Duration // from one reading to the next

	mu      sync.Mutex
	watched bool           // changes are being received; otherwise nothing is kept
	reading int            // calls of read that have not returned
	version uint64         // of what was received: a result of read is kept only if nothing changed meanwhile
	kept    *defaultRoutes // nil after a change
	expired bool           // kept is older than maxAge. It still says which changes matter
	expiry  *time.Timer
}

// get returns the default routes. The maps in it must not be changed.
func (c *routeCache) get() (defaultRoutes, error) {
	c.mu.Lock()
	if c.kept != nil && !c.expired {
		defer c.mu.Unlock()
		return *c.kept, nil
	}
	version := c.version
	c.reading++
	c.mu.Unlock()

	routes, err := c.read()

	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading--
	if err == nil && c.watched && c.version == version {
		c.keep(routes)
	}
	return routes, err
}

// keep stores the routes until they change or expire. The caller holds mu.
func (c *routeCache) keep(routes defaultRoutes) {
	c.kept, c.expired = &routes, false
	if c.expiry != nil {
		c.expiry.Stop()
	}
	c.expiry = time.AfterFunc(c.maxAge, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.expired = true
	})
}

// setWatched says whether all changes are received from now on. What was kept before is forgotten.
func (c *routeCache) setWatched(watched bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watched = watched
	c.forget()
}

// apply forgets the routes if the changes may concern them. It reports whether there was something to forget, or a reading
// that may be outdated.
func (c *routeCache) apply(changes changes) (forgotten bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil && c.reading == 0 || !c.concern(changes) {
		return false
	}
	c.forget()
	return true
}

// concern reports whether the changes may concern the default routes. The caller holds mu.
func (c *routeCache) concern(changes changes) bool {
	if changes.routes || changes.unknown {
		return true
	}
	if c.reading > 0 { // it may return other routes than those that are kept
		return len(changes.links)+len(changes.objects) > 0
	}
	return slices.ContainsFunc(changes.links, func(index int) bool { return c.kept.interfaces[index] }) ||
		slices.ContainsFunc(changes.objects, func(id uint32) bool { return c.kept.objects[id] })
}

// forget makes the next get read the routes, also if a reading is in progress. The caller holds mu.
func (c *routeCache) forget() {
	c.version++
	c.kept = nil
}
