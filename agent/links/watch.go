// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	reopening = time.Second // how long to wait before a socket is opened again
	maxAge    = time.Minute // how old the default routes are at most, whatever was received
)

// Watcher lists the interfaces, keeps the interfaces of the default routes, and signals when one of both may have changed: once
// at the start, and then after every change. At most one signal is pending. A signal has no content: the receiver calls List and
// Primary, which return the present state, so nothing is lost if signals are merged.
type Watcher struct {
	Links

	changed chan struct{}
	resyncs atomic.Uint64
	routes  routeCache
}

// Primary returns the same as Links.Primary. It reads the routes only if they may have changed since the last call. A change is
// signalled only after a call. The result must not be modified.
func (w *Watcher) Primary() (map[int]bool, error) {
	routes, err := w.routes.get()
	return routes.interfaces, err
}

// Changed returns the channel of the signals. It is closed when watching has ended.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// Resyncs returns how often changes were missed since Watch: the socket's buffer was full, or the socket had to be opened again.
// A signal follows each time. It may be called concurrently.
func (w *Watcher) Resyncs() uint64 { return w.resyncs.Load() }

// Watch returns a watcher of the calling thread's network namespace.
//
// Watching ends with ctx. There is an error if the socket cannot be opened.
func (Links) Watch(ctx context.Context) (*Watcher, error) {
	socket, err := subscribe()
	if err != nil {
		return nil, err
	}
	w := newWatcher()
	go w.watch(ctx, socket, subscribe, reopening)
	return w, nil
}

func newWatcher() *Watcher {
	return &Watcher{changed: make(chan struct{}, 1), routes: routeCache{read: readDefaultRoutes, maxAge: maxAge}}
}

// watch signals until ctx is done. If the socket cannot be read any more, it opens another one.
func (w *Watcher) watch(ctx context.Context, socket io.ReadCloser, reopen func() (io.ReadCloser, error), pause time.Duration) {
	defer close(w.changed)
	for {
		if socket != nil {
			w.follow(ctx, socket)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if ctx.Err() != nil { // if both are ready, select chooses at random
			return
		}
		var err error
		if socket, err = reopen(); err != nil {
			socket = nil
			continue
		}
		w.resyncs.Add(1)
	}
}

// follow signals the changes that it reads from the socket. It returns when the socket cannot be read any more, and closes it.
func (w *Watcher) follow(ctx context.Context, socket io.ReadCloser) {
	stop := context.AfterFunc(ctx, func() { socket.Close() }) // ends Read
	defer func() {
		if stop() {
			socket.Close()
		}
	}()
	w.routes.setWatched(true)
	defer w.routes.setWatched(false)
	// Changes before the socket was opened were missed.
	w.signal()
	messages := make([]byte, 64<<10)
	for {
		n, err := socket.Read(messages)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			// The socket's buffer was full and messages were dropped. The kernel reports this once.
			w.resyncs.Add(1)
			w.note(changes{unknown: true})
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return
		default:
			w.note(parseChanges(messages[:n]))
		}
	}
}

// note makes the routes be read again if the changes may concern them, and then signals, so that the receiver does not get the
// earlier ones.
func (w *Watcher) note(changes changes) {
	if w.routes.apply(changes) || len(changes.links) > 0 || changes.unknown {
		w.signal()
	}
}

// signal sends a signal, unless one is pending.
func (w *Watcher) signal() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// subscribe opens a socket that receives changes of the calling thread's network namespace: of links, default routes, rules,
// nexthop objects and IPv4 addresses.
func subscribe() (io.ReadCloser, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch interfaces: %w", os.NewSyscallError("socket", err))
	}
	socket := os.NewFile(uintptr(fd), "rtnetlink") // non-blocking, so that Close ends Read
	if err := dropOtherRoutes(fd); err != nil {
		return nil, errors.Join(fmt.Errorf("watch interfaces: %w", os.NewSyscallError("setsockopt", err)), socket.Close())
	}
	var groups uint32
	for _, group := range []int{
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
		unix.RTNLGRP_NEXTHOP, unix.RTNLGRP_IPV4_IFADDR, // without an IPv6 address, IPv6 routes remain
	} {
		groups |= 1 << (group - 1)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return nil, errors.Join(fmt.Errorf("watch interfaces: %w", os.NewSyscallError("bind", err)), socket.Close())
	}
	return socket, nil
}
