// SPDX-License-Identifier: Apache-2.0

// Package history runs random histories: an agent, a controller or both on an API server in memory, whose calls fail and
// who are killed at any of them, while other clients and the kernel do something too. A scenario says what happens in a
// step and what has to be true.
package history

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/test/util/memapi"
)

var seedFlag = flag.Uint64("history-seed", 0, "run the random histories of this seed, which a failed test has printed; 0: of a new one")

// Scenario is a system under test with a model of it. Both report through the History that it was made with.
type Scenario interface {
	Step() // one random step
	End()  // lets everything come to rest, without faults, and compares with the model
}

// Run runs a number of histories of so many steps each. begin makes the scenario of one.
func Run(t *testing.T, histories, steps int, begin func(*History) Scenario) {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	for i := range histories {
		h := &History{
			t: t, name: fmt.Sprintf("history %d of seed %d", i, seed),
			Random: rand.New(rand.NewPCG(seed, uint64(i))),
			Clock:  testclock.NewFakeClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)),
		}
		h.Server = memapi.New(h.Clock.Now)
		h.Live = &memapi.Client{Server: h.Server}
		scenario := begin(h)
		for range steps {
			scenario.Step()
		}
		h.Logf("the end: everything comes to rest")
		h.Still = true
		h.Arm(0, nil)
		h.Random = rand.New(rand.NewPCG(0, 0))
		scenario.End()
	}
}

// History is one history: what all that act in it share, and the log of what happened.
type History struct {
	Random *rand.Rand
	Clock  *testclock.FakeClock
	Server *memapi.Server
	Live   *memapi.Client // without cache and faults: of users, and of the model
	Still  bool           // nothing happens but what the scenario does itself

	t     *testing.T
	name  string
	log   []string
	calls int
	fault error
}

// ErrFault is a fault to Arm with.
var ErrFault = errors.New("the call failed")

type killed struct{}

// Fatalf fails the test with the log.
func (h *History) Fatalf(format string, args ...any) {
	h.t.Helper()
	h.t.Fatalf("%s: %s\nafter\n%s", h.name, fmt.Sprintf(format, args...), strings.Join(h.log, "\n"))
}

// Logf writes a line into the log, which is printed only if the test fails.
func (h *History) Logf(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

// Must fails the test if there is an error.
func (h *History) Must(err error) {
	h.t.Helper()
	if err != nil {
		h.Fatalf("%v", err)
	}
}

// Exists gets an object by name, and reports whether there is one.
func (h *History) Exists(name string, object client.Object) bool {
	return h.Live.Get(context.Background(), types.NamespacedName{Name: name}, object) == nil
}

// OneOf returns one of some values at random.
func OneOf[T any](h *History, values ...T) T { return values[h.Random.IntN(len(values))] }

// Arm lets the call with this number, counted from now, fail with fault. Without fault whoever calls is killed. With 0
// no call fails.
func (h *History) Arm(calls int, fault error) { h.calls, h.fault = calls, fault }

// Call is asked at each call that can fail. point says which one it is.
func (h *History) Call(point string) error {
	if h.calls--; h.calls != 0 {
		return nil
	}
	if h.fault == nil {
		h.Logf("  killed %s", point)
		panic(killed{})
	}
	h.Logf("  fails %s", point)
	return h.fault
}

// Run lets someone act, who may be killed. Then restart is called.
func (h *History) Run(act, restart func()) {
	defer func() {
		switch e := recover().(type) {
		case nil:
		case killed:
			restart()
		default:
			panic(e)
		}
	}()
	act()
}

// DeliverAll lets a cache take in all changes of some kinds.
func DeliverAll(cache *memapi.Cache, kinds ...memapi.Kind) {
	for _, kind := range kinds {
		for more := true; more; {
			_, more = cache.Next(kind)
		}
	}
}
