// SPDX-License-Identifier: Apache-2.0

// Package source sends traffic to a receiver that asks for it, over sockets of IPv4: a TCP stream, or UDP datagrams in small frames.
// The receiver measures. It can be in another network namespace or in a virtual machine.
package source

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Port is the TCP port of the source.
const Port = 5201

// FrameBytes is the size of a frame with one of the datagrams: the smallest of Ethernet.
const FrameBytes = 14 + 20 + 8 + payloadBytes

const (
	payloadBytes = 18        // of a datagram
	chunkBytes   = 256 << 10 // of the stream, in one system call
)

// The requests, which are the first line on a connection. Closing the connection ends what is sent.
const (
	streamRequest    = "stream"    // the answer is a TCP stream without end, on the same connection
	datagramsRequest = "datagrams" // the answer is datagrams to the UDP port with the number of the connection's port
)

// patience is the limit of each wait for the other side.
const patience = 10 * time.Second

// Source sends to one receiver at a time.
type Source struct {
	listener net.Listener
	out      *net.UDPConn // sends the datagrams
}

// Listen returns a source with this address. Its sockets belong to the network namespace of the calling thread.
func Listen(ctx context.Context, address string) (*Source, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	out, err := net.ListenUDP("udp4", &net.UDPAddr{IP: listener.Addr().(*net.TCPAddr).IP})
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return &Source{listener, out}, nil
}

// Serve sends what receivers ask for until the context is done, and then returns nil. It uses one thread, which is bound to the
// first CPU of those allowed. It closes the source.
func (s *Source) Serve(ctx context.Context) error {
	defer s.out.Close()
	defer s.listener.Close()
	defer context.AfterFunc(ctx, func() { s.listener.Close() })()
	done := make(chan error)
	go func() { done <- s.serve(ctx) }()
	return <-done
}

func (s *Source) serve(ctx context.Context) error {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if err := bindToFirstCPU(); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := s.acceptOne(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func (s *Source) acceptOne(ctx context.Context) error {
	conn, err := s.listener.Accept()
	if err != nil {
		return err
	}
	if err := errors.Join(s.answer(ctx, conn.(*net.TCPConn)), conn.Close()); err != nil {
		return fmt.Errorf("send traffic to %s: %w", conn.RemoteAddr(), err)
	}
	return nil
}

func bindToFirstCPU() error {
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return fmt.Errorf("find the CPUs of this thread: %w", err)
	}
	cpu := 0
	for !allowed.IsSet(cpu) {
		cpu++
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("bind this thread to a CPU: %w", err)
	}
	return nil
}

func (s *Source) answer(ctx context.Context, conn *net.TCPConn) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	request, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	switch strings.TrimSpace(request) {
	case streamRequest:
		return sendStream(ctx, conn)
	case datagramsRequest:
		return s.sendDatagrams(ctx, conn)
	default:
		return fmt.Errorf("unknown request %q", request)
	}
}

// sendStream sends until the receiver closes the connection.
func sendStream(ctx context.Context, conn *net.TCPConn) error {
	socket, err := blocking(conn)
	if err != nil {
		return err
	}
	defer socket.Close()
	chunk := make([]byte, chunkBytes)
	for ctx.Err() == nil {
		_, err := unix.SendmsgN(int(socket.Fd()), chunk, nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("send: %w", err)
		}
	}
	return nil
}

// sendDatagrams sends until the receiver closes the connection.
func (s *Source) sendDatagrams(ctx context.Context, conn *net.TCPConn) error {
	receiver := conn.RemoteAddr().(*net.TCPAddr)
	to := &unix.SockaddrInet4{Port: receiver.Port, Addr: [4]byte(receiver.IP.To4())}
	socket, err := blocking(s.out)
	if err != nil {
		return err
	}
	defer socket.Close()
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	ctx, closed := context.WithCancel(ctx)
	ended := make(chan struct{})
	defer func() {
		_ = conn.CloseRead() // it is closed already, except after an error
		<-ended
	}()
	go func() {
		defer close(ended)
		defer closed()
		_, _ = io.Copy(io.Discard, conn) // whatever ends the connection
	}()
	datagram := make([]byte, payloadBytes)
	for ctx.Err() == nil {
		_, err := unix.SendmsgN(int(socket.Fd()), datagram, nil, to, unix.MSG_NOSIGNAL)
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) { // ENOBUFS: the device's queue is full
			return fmt.Errorf("send a datagram: %w", err)
		}
	}
	return nil
}

// blocking returns the socket of the connection for system calls that block the calling thread. Go's own calls would hand a
// thread over each time they wait. A call ends with EAGAIN after the patience. The connection's own methods block from then on.
func blocking(conn interface{ File() (*os.File, error) }) (*os.File, error) {
	socket, err := conn.File()
	if err != nil {
		return nil, err
	}
	fd, limit := int(socket.Fd()), unix.NsecToTimeval(int64(patience))
	err = errors.Join(unix.SetNonblock(fd, false),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit))
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	return socket, nil
}
