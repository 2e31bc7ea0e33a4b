// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

const (
	soon  = 5 * time.Second
	quiet = 50 * time.Millisecond
)

func expectSignal(t *testing.T, changed <-chan struct{}, what string) {
	t.Helper()
	select {
	case _, ok := <-changed:
		if !ok {
			t.Fatalf("%s: the watch has ended", what)
		}
	case <-time.After(soon):
		t.Fatalf("%s: no signal", what)
	}
}

// settle takes what signals there are, until there are none: one change makes several messages.
func settle(changed <-chan struct{}) {
	for {
		select {
		case <-changed:
		case <-time.After(quiet):
			return
		}
	}
}

func expectEnd(t *testing.T, changed <-chan struct{}) {
	t.Helper()
	deadline := time.After(soon)
	for {
		select {
		case _, ok := <-changed:
			if !ok {
				return
			}
		case <-deadline:
			t.Fatal("the watch goes on")
		}
	}
}

// watchOf watches the namespace.
func watchOf(ctx context.Context, t *testing.T, n *netns.Namespace) (w *Watcher) {
	t.Helper()
	n.Do(func() {
		var err error
		if w, err = (Links{}).Watch(ctx); err != nil {
			t.Fatal(err)
		}
	})
	return w
}

// primary returns the indexes of the primary interfaces as the watcher has them, sorted.
func primary(t *testing.T, n *netns.Namespace, w *Watcher) (indexes []int) {
	t.Helper()
	n.Do(func() {
		all, err := w.Primary()
		if err != nil {
			t.Fatal(err)
		}
		indexes = slices.Sorted(maps.Keys(all))
	})
	return indexes
}

func TestWatch(t *testing.T) {
	n := netns.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	w := watchOf(ctx, t, n)
	changed := w.Changed()
	expectSignal(t, changed, "at the start")
	settle(changed)

	_, everywhere, _ := net.ParseCIDR("0.0.0.0/0")
	_, somewhere, _ := net.ParseCIDR("203.0.113.0/24")
	route := func(name string, dst *net.IPNet, change func(*netlink.Route) error) {
		t.Helper()
		n.Do(func() {
			l, err := netlink.LinkByName(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := change(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK}); err != nil {
				t.Fatal(err)
			}
		})
	}
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"an interface appears", func() { n.Veth(t, "a", "b") }},
		{"it is renamed", func() { n.Rename(t, "a", "eth0.100") }},
		{"a default route appears", func() { route("eth0.100", everywhere, netlink.RouteAdd) }},
		{"it goes", func() { route("eth0.100", everywhere, netlink.RouteDel) }},
	} {
		primary(t, n, w) // changes of routes are signalled after a call only
		step.do()
		expectSignal(t, changed, step.what)
		settle(changed)
	}

	primary(t, n, w)
	route("eth0.100", somewhere, netlink.RouteAdd)
	select {
	case <-changed:
		t.Error("a route to somewhere: signalled")
	case <-time.After(quiet):
	}

	n.Delete(t, "eth0.100")
	expectSignal(t, changed, "it is deleted")

	cancel()
	expectEnd(t, changed)
}

func TestWatchSignalsDoNotPileUp(t *testing.T) {
	n := netns.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	changed := watchOf(ctx, t, n).Changed()
	for range 5 { // and nobody listens
		n.Veth(t, "a", "b")
		n.Delete(t, "a")
	}
	time.Sleep(quiet)
	expectSignal(t, changed, "after many changes")
	select {
	case <-changed:
		t.Error("signalled twice")
	case <-time.After(quiet):
	}
	cancel()
	expectEnd(t, changed)
}

// script is a socket that returns these errors in turn, then waits to be closed.
type script struct {
	errs   []error
	closed chan struct{}
}

func newScript(errs ...error) *script { return &script{errs: errs, closed: make(chan struct{})} }

func (s *script) Read([]byte) (int, error) {
	if len(s.errs) > 0 {
		err := s.errs[0]
		s.errs = s.errs[1:]
		return 0, &os.PathError{Op: "read", Path: "rtnetlink", Err: err}
	}
	<-s.closed
	return 0, os.ErrClosed
}

func (s *script) Close() error {
	close(s.closed) // panics if it is closed twice
	return nil
}

func expectResyncs(t *testing.T, w *Watcher, want uint64) {
	t.Helper()
	if got := w.Resyncs(); got != want {
		t.Errorf("%d resyncs, want %d", got, want)
	}
}

func TestWatchAfterAnOverflow(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	reopen := func() (io.ReadCloser, error) { return nil, errors.New("opened again for no reason") }
	w := &Watcher{changed: make(chan struct{}, 2)}
	go w.watch(ctx, newScript(unix.ENOBUFS, unix.EINTR), reopen, time.Millisecond)
	expectSignal(t, w.Changed(), "at the start")
	expectSignal(t, w.Changed(), "after the overflow")
	expectResyncs(t, w, 1)
	cancel()
	expectEnd(t, w.Changed())
}

// What a socket that overflows does not tell is made up for: who lists after each signal ends with what there is.
func TestAStormThatOverflowsTheSocketIsFollowedByAFullList(t *testing.T) {
	n := netns.New(t)
	n.Veth(t, "stays", "far")
	ctx, cancel := context.WithCancel(t.Context())
	w := newWatcher()
	n.Do(func() {
		socket, err := smallSocket()
		if err != nil {
			t.Fatal(err)
		}
		go w.watch(ctx, socket, subscribe, time.Millisecond)
	})
	expectSignal(t, w.Changed(), "at the start")

	var listed atomic.Pointer[[]string]
	var lister sync.WaitGroup
	lister.Go(func() {
		for range w.Changed() {
			names := names(t, n)
			listed.Store(&names)
		}
	})
	storm := func(round int) {
		made, renamed := fmt.Sprintf("made%d", round), fmt.Sprintf("renamed%d", round)
		n.Veth(t, made, "peer")
		n.Rename(t, made, renamed)
		n.Delete(t, renamed)
	}
	round := 0
	for ; w.Resyncs() < 20 && round < 500; round++ {
		storm(round)
	}
	if w.Resyncs() == 0 {
		t.Fatalf("%d rounds did not overflow the socket", round)
	}
	n.Rename(t, "stays", "stayed")
	want := names(t, n)
	deadline := time.Now().Add(soon)
	for got := listed.Load(); got == nil || !slices.Equal(*got, want); got = listed.Load() {
		if time.Now().After(deadline) {
			t.Fatalf("after the storm what was listed last is %v, want %v", got, want)
		}
		time.Sleep(time.Millisecond)
	}
	t.Logf("%d resyncs in %d rounds", w.Resyncs(), round)
	cancel()
	lister.Wait()
}

// names returns the names of the interfaces of the namespace, in the kernel's order.
func names(t *testing.T, n *netns.Namespace) (names []string) {
	t.Helper()
	n.Do(func() {
		list, err := Links{}.List()
		if err != nil {
			t.Error(err)
		}
		for _, i := range list {
			names = append(names, i.Name)
		}
	})
	return names
}

func TestWatchAfterTheSocketBroke(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	attempts := 0
	reopen := func() (io.ReadCloser, error) {
		if attempts++; attempts < 3 {
			return nil, unix.EMFILE
		}
		return newScript(), nil
	}
	w := &Watcher{changed: make(chan struct{}, 2)}
	broken := newScript(unix.EBADF)
	go w.watch(ctx, broken, reopen, time.Millisecond)
	expectSignal(t, w.Changed(), "at the start")
	expectSignal(t, w.Changed(), "once opened again")
	expectResyncs(t, w, 1)
	<-broken.closed
	cancel()
	expectEnd(t, w.Changed())
	if attempts != 3 {
		t.Errorf("%d attempts", attempts)
	}
}

func TestMessagesThatAreNotUnderstoodMayReportAnyChange(t *testing.T) {
	for name, messages := range map[string][]byte{
		"a length beyond the end":      {200, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"a length below the header's":  {1, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"a link without a body":        {16, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"a message of an unknown type": {16, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		if got := parseChanges(messages); !got.unknown {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
