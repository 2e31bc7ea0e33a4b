// SPDX-License-Identifier: Apache-2.0

package stacks

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

// arrivals are the packets that an interface receives, aggregates being one packet each. They are known from a packet socket, since
// in native mode the statistics of a veth have frames. If the machine is slow, some lack.
type arrivals struct {
	packets uint64
	largest int            // bytes with the Ethernet header, without the tag
	jumbo   traffic.Counts // those with a jumbo option of IPv6, with the tag

	file *os.File
	done chan struct{}
}

func (a *arrivals) String() string {
	return fmt.Sprintf("%d packets arrived, the largest of %d bytes, %d with a jumbo option", a.packets, a.largest, a.jumbo.Packets)
}

// watchArrivals begins to count what the interface of this namespace receives. The packets have a tag of so many bytes, which the
// kernel removes before the socket gets them.
func watchArrivals(t *testing.T, name string, tag int) *arrivals {
	t.Helper()
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	check(t, errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link(t, name).Attrs().Index}),
	))
	a := &arrivals{file: os.NewFile(uintptr(fd), name), done: make(chan struct{})}
	t.Cleanup(func() { a.file.Close() })
	raw, err := a.file.SyscallConn()
	check(t, err)
	go func() {
		defer close(a.done)
		start := make([]byte, 64)
		for {
			var n int
			var failed error
			err := raw.Read(func(fd uintptr) bool {
				n, _, failed = unix.Recvfrom(int(fd), start, unix.MSG_TRUNC) // returns the whole length
				return !errors.Is(failed, unix.EAGAIN)
			})
			if err != nil || failed != nil {
				return
			}
			a.packets++
			a.largest = max(a.largest, n)
			if n > len(start) && start[12] == 0x86 && start[13] == 0xdd && start[20] == unix.IPPROTO_HOPOPTS && start[56] == 194 {
				a.jumbo = a.jumbo.Plus(traffic.Counts{Packets: 1, Bytes: uint64(n + tag)})
			}
		}
	}()
	return a
}

// end returns what has arrived until now.
func (a *arrivals) end(t *testing.T) *arrivals {
	t.Helper()
	check(t, a.file.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	<-a.done
	return a
}
