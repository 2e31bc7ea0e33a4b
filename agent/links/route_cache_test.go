// SPDX-License-Identifier: Apache-2.0

package links

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// counted returns a cache of routes by interface 2 and nexthop object 5, and the number of readings.
func counted() (c *routeCache, readings *int) {
	readings = new(int)
	return &routeCache{maxAge: time.Minute, watched: true, read: func() (defaultRoutes, error) {
		*readings++
		return defaultRoutes{map[int]bool{2: true}, map[uint32]bool{5: true}}, nil
	}}, readings
}

func get(t *testing.T, c *routeCache) {
	t.Helper()
	if routes, err := c.get(); err != nil || !routes.interfaces[2] {
		t.Fatalf("%+v, %v", routes, err)
	}
}

func TestRoutesAreReadAgainOnlyAfterAChangeThatConcernsThem(t *testing.T) {
	for name, test := range map[string]struct {
		changes changes
		want    bool
	}{
		"no change":                           {changes{}, false},
		"the interface of a default route":    {changes{links: []int{7, 2}}, true},
		"another interface":                   {changes{links: []int{7}}, false},
		"a default route, rule or address":    {changes{routes: true}, true},
		"a nexthop object of a default route": {changes{objects: []uint32{9, 5}}, true},
		"another nexthop object":              {changes{objects: []uint32{9}}, false},
		"unknown":                             {changes{unknown: true}, true},
	} {
		c, readings := counted()
		get(t, c)
		get(t, c)
		if *readings != 1 {
			t.Fatalf("%s: without a change, %d readings", name, *readings)
		}
		if got := c.apply(test.changes); got != test.want {
			t.Errorf("%s: apply returned %v", name, got)
		}
		get(t, c)
		if got := *readings == 2; got != test.want {
			t.Errorf("%s: read again is %v, want %v", name, got, test.want)
		}
	}
}

func TestRoutesThatNobodyAskedForAreNotForgotten(t *testing.T) {
	c, _ := counted()
	if c.apply(changes{routes: true, unknown: true}) {
		t.Error("a change is signalled although nobody has read routes")
	}
}

func TestRoutesThatChangeWhileTheyAreReadAreNotKept(t *testing.T) {
	for name, change := range map[string]changes{
		"any interface":      {links: []int{7}},
		"any nexthop object": {objects: []uint32{9}},
		"a default route":    {routes: true},
	} {
		for _, kept := range []bool{false, true} { // kept: an earlier reading, which has expired
			synctest.Test(t, func(t *testing.T) {
				c, readings := counted()
				if kept {
					get(t, c)
					time.Sleep(c.maxAge)
					synctest.Wait()
				}
				before, read := *readings, c.read
				c.read = func() (defaultRoutes, error) {
					if !c.apply(change) {
						t.Errorf("%s: not signalled", name)
					}
					return read()
				}
				get(t, c)
				c.read = read
				get(t, c)
				get(t, c)
				if got := *readings - before; got != 2 {
					t.Errorf("%s: read %d times, want twice", name, got)
				}
			})
		}
	}
}

func TestRoutesAreReadAgainWhenTheyAreOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, readings := counted()
		get(t, c)
		time.Sleep(c.maxAge / 2)
		c.apply(changes{routes: true})
		get(t, c) // from now on
		time.Sleep(c.maxAge - time.Nanosecond)
		synctest.Wait()
		if get(t, c); *readings != 2 {
			t.Errorf("%d readings before the routes are old", *readings)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if get(t, c); *readings != 3 {
			t.Errorf("%d readings when the routes are old", *readings)
		}
	})
}

func TestOldRoutesStillSayWhichChangesAreSignalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := counted()
		get(t, c)
		time.Sleep(c.maxAge)
		synctest.Wait()
		if c.apply(changes{links: []int{7}}) || !c.apply(changes{links: []int{2}}) {
			t.Error("want the change of interface 2 signalled, and that of interface 7 not")
		}
	})
}

func TestNothingIsKeptWhileChangesAreNotReceived(t *testing.T) {
	c, readings := counted()
	get(t, c)
	c.setWatched(false)
	get(t, c)
	get(t, c)
	if *readings != 3 {
		t.Errorf("without a socket, %d readings, want one for each call", *readings)
	}
	c.setWatched(true)
	get(t, c)
	get(t, c)
	if *readings != 4 {
		t.Errorf("with a socket again, %d readings, want one more", *readings)
	}
}

func TestAFailedReadingIsNotKept(t *testing.T) {
	c, _ := counted()
	read, fail := c.read, errors.New("no")
	c.read = func() (defaultRoutes, error) { return defaultRoutes{}, fail }
	if _, err := c.get(); !errors.Is(err, fail) {
		t.Errorf("%v", err)
	}
	c.read = read
	get(t, c)
}
