// SPDX-License-Identifier: Apache-2.0

// Package bulk sends much data by TCP between network namespaces, with ordinary sockets, and says which frames that are on a wire.
package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// Namespace is a network namespace.
type Namespace interface {
	Do(fn func() error) error // calls fn in it, and returns its error
}

// Addresses gives the ends of a veth pair IPv4 addresses, and each other's MAC address. The result is where the second end listens.
func Addresses(from, to Namespace, fromName, toName string) (netip.AddrPort, error) {
	ends := []struct {
		in     Namespace
		name   string
		prefix netip.Prefix
		mac    net.HardwareAddr
	}{
		{in: from, name: fromName, prefix: netip.MustParsePrefix("192.0.2.1/24")},
		{in: to, name: toName, prefix: netip.MustParsePrefix("192.0.2.2/24")},
	}
	for i, end := range ends {
		err := end.in.Do(func() error {
			l, err := netlink.LinkByName(end.name)
			if err != nil {
				return fmt.Errorf("find %s: %w", end.name, err)
			}
			ends[i].mac = l.Attrs().HardwareAddr
			return netlink.AddrReplace(l, &netlink.Addr{IPNet: &net.IPNet{IP: end.prefix.Addr().AsSlice(), Mask: net.CIDRMask(24, 32)}})
		})
		if err != nil {
			return netip.AddrPort{}, err
		}
	}
	for i, end := range ends {
		far := ends[1-i]
		err := end.in.Do(func() error {
			l, err := netlink.LinkByName(end.name)
			if err != nil {
				return fmt.Errorf("find %s: %w", end.name, err)
			}
			return netlink.NeighSet(&netlink.Neigh{
				LinkIndex: l.Attrs().Index, IP: far.prefix.Addr().AsSlice(), HardwareAddr: far.mac, State: netlink.NUD_PERMANENT,
			})
		})
		if err != nil {
			return netip.AddrPort{}, err
		}
	}
	return netip.AddrPortFrom(ends[1].prefix.Addr(), 5000), nil
}

// A Connection sends from one namespace to another. What the receiver answers is not part of it.
type Connection struct {
	sender, receiver *net.TCPConn
	headers          uint64 // bytes in front of the payload in each frame but the first, from the Ethernet header
}

// window is the receiver's buffer. It limits what is on the way, so that no queue overflows.
const window = 100_000

// Connect connects to the address. Both namespaces must have timestamps of TCP, as by default.
func Connect(ctx context.Context, from, to Namespace, address netip.AddrPort) (c *Connection, err error) {
	c = &Connection{headers: 14 + 20 + 32}
	if address.Addr().Is6() {
		c.headers += 20
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, window) })
	}}
	var listener net.Listener
	err = to.Do(func() error {
		listener, err = config.Listen(ctx, "tcp", address.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	var sender net.Conn
	err = from.Do(func() error {
		sender, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", address.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	receiver, err := listener.Accept()
	if err != nil {
		return nil, errors.Join(err, sender.Close())
	}
	c.sender, c.receiver = sender.(*net.TCPConn), receiver.(*net.TCPConn)
	return c, nil
}

// Send sends so many bytes, and waits until they are received and acknowledged.
func (c *Connection) Send(size int64) error {
	deadline := time.Now().Add(30 * time.Second)
	if err := errors.Join(c.sender.SetDeadline(deadline), c.receiver.SetDeadline(deadline)); err != nil {
		return err
	}
	received := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, c.receiver, size)
		received <- err
	}()
	_, err := io.CopyN(c.sender, zeros{}, size)
	if err := errors.Join(err, <-received); err != nil {
		return err
	}
	for {
		info, err := c.info()
		if err != nil || info.Unacked == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d segments are not acknowledged", info.Unacked)
		}
		time.Sleep(time.Millisecond)
	}
}

// Sent returns the frames that the sender has sent, as its kernel knows them: with each one of an aggregate, and also those that were
// sent again.
func (c *Connection) Sent() (traffic.Counts, error) {
	info, err := c.info()
	const more = 8 // the options of the first frame are longer
	return traffic.Counts{Packets: uint64(info.Segs_out), Bytes: uint64(info.Segs_out)*c.headers + more + info.Bytes_sent}, err
}

func (c *Connection) info() (info *unix.TCPInfo, err error) {
	raw, err := c.sender.SyscallConn()
	if err != nil {
		return &unix.TCPInfo{}, err
	}
	controlled := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(controlled, err); err != nil {
		return &unix.TCPInfo{}, err
	}
	return info, nil
}

// Finish ends the connection in both directions, and returns all frames that the sender has sent. It sends no more.
func (c *Connection) Finish() (traffic.Counts, error) {
	if err := errors.Join(c.sender.CloseWrite(), c.receiver.Close()); err != nil {
		return traffic.Counts{}, err
	}
	if _, err := c.sender.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return traffic.Counts{}, fmt.Errorf("wait for the end of the connection: %w", err)
	}
	sent, err := c.Sent()
	return sent, errors.Join(err, c.sender.Close())
}

// Close sends frames that Sent has not said.
func (c *Connection) Close() error { return errors.Join(c.sender.Close(), c.receiver.Close()) }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
