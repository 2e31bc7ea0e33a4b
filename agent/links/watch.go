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
	"unsafe"

	"golang.org/x/sys/unix"
)

// reopening is how long to wait before a socket is opened again.
const reopening = time.Second

// Watcher signals that the interfaces or the default routes may have changed: once at the start, and then after every change. At
// most one signal is pending. A signal has no content: the receiver calls List, which returns the present state, so nothing is
// lost if signals are merged.
type Watcher struct {
	changed chan struct{}
	resyncs atomic.Uint64
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

func newWatcher() *Watcher { return &Watcher{changed: make(chan struct{}, 1)} }

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
	// Changes before the socket was opened were missed.
	w.signal()
	messages := make([]byte, 64<<10)
	for {
		n, err := socket.Read(messages)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			// The socket's buffer was full and messages were dropped. The kernel reports this once.
			w.resyncs.Add(1)
			w.signal()
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return
		case concerns(messages[:n]):
			w.signal()
		}
	}
}

// signal sends a signal, unless one is pending.
func (w *Watcher) signal() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// subscribe opens a socket that receives changes of links and routes of the calling thread's network namespace.
func subscribe() (io.ReadCloser, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch interfaces: %w", os.NewSyscallError("socket", err))
	}
	socket := os.NewFile(uintptr(fd), "rtnetlink") // non-blocking, so that Close ends Read
	groups := unix.RTMGRP_LINK | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: uint32(groups)}); err != nil {
		return nil, errors.Join(fmt.Errorf("watch interfaces: %w", os.NewSyscallError("bind", err)), socket.Close())
	}
	return socket, nil
}

// concerns reports whether one of the messages is about a link or a default route. On routers other routes change often.
func concerns(messages []byte) bool {
	const headerSize = unix.SizeofNlMsghdr
	for len(messages) >= headerSize {
		header := *(*unix.NlMsghdr)(unsafe.Pointer(unsafe.SliceData(messages)))
		if int(header.Len) < headerSize || int(header.Len) > len(messages) {
			return true // invalid, so it may be about anything
		}
		switch body := messages[headerSize:header.Len]; header.Type {
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			// struct rtmsg of include/uapi/linux/rtnetlink.h: family, then the destination's prefix length
			if len(body) < 2 || body[1] == 0 {
				return true
			}
		default:
			return true
		}
		messages = messages[min(nlAlign(int(header.Len)), len(messages)):]
	}
	return false
}

// nlAlign is NLMSG_ALIGN of include/uapi/linux/netlink.h.
func nlAlign(n int) int {
	return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1)
}
