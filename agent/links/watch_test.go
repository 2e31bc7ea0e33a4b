package links

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/netns"
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

func TestWatch(t *testing.T) {
	n := netns.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	var changed <-chan struct{}
	n.Do(func() {
		var err error
		if changed, err = (Links{}).Watch(ctx); err != nil {
			t.Fatal(err)
		}
	})
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
		step.do()
		expectSignal(t, changed, step.what)
		settle(changed)
	}

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
	var changed <-chan struct{}
	n.Do(func() {
		var err error
		if changed, err = (Links{}).Watch(ctx); err != nil {
			t.Fatal(err)
		}
	})
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

func TestWatchAfterAnOverflow(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	reopen := func() (io.ReadCloser, error) { return nil, errors.New("opened again for no reason") }
	socket := newScript(unix.ENOBUFS, unix.EINTR)
	changed := make(chan struct{}, 2)
	go watch(ctx, socket, reopen, time.Millisecond, changed)
	expectSignal(t, changed, "at the start")
	expectSignal(t, changed, "after the overflow")
	cancel()
	expectEnd(t, changed)
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
	changed := make(chan struct{}, 2)
	broken := newScript(unix.EBADF)
	go watch(ctx, broken, reopen, time.Millisecond, changed)
	expectSignal(t, changed, "at the start")
	expectSignal(t, changed, "once opened again")
	<-broken.closed
	cancel()
	expectEnd(t, changed)
	if attempts != 3 {
		t.Errorf("%d attempts", attempts)
	}
}

func TestConcernsWhatItDoesNotUnderstand(t *testing.T) {
	for name, messages := range map[string][]byte{
		"a length beyond the end":      {200, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"a length below the header's":  {1, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"a route without a body":       {16, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"a message of an unknown type": {16, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		if !concerns(messages) {
			t.Errorf("%s does not concern", name)
		}
	}
}
