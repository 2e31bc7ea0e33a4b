// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Sender sends frames out of one interface, so that the other end of a veth pair receives them.
type Sender struct {
	fd int
}

// NewSender opens an AF_PACKET socket on the interface in the network namespace of the calling thread; Send may
// then be called from any. The error wraps os.ErrPermission without CAP_NET_RAW.
func NewSender(index int) (*Sender, error) {
	// Protocol 0: the socket receives nothing.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind the packet socket to interface %d: %w", index, err), unix.Close(fd))
	}
	return &Sender{fd: fd}, nil
}

// Send sends the frame n times: exactly, if there is no error. The frame has at least the 14 bytes of the Ethernet
// header, and is not padded.
func (s *Sender) Send(frame []byte, n int) error {
	const patience = 5 * time.Second
	for sent := range n {
		started := time.Time{}
		for {
			_, err := unix.Write(s.fd, frame)
			if err == nil {
				break
			}
			// The receiver's ring of 256 frames is full: the frame was dropped here and has to be sent again.
			if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("send frame %d of %d: %w", sent+1, n, err)
			}
			if started.IsZero() {
				started = time.Now()
			}
			if time.Since(started) > patience {
				return fmt.Errorf("send frame %d of %d: no room for %v: %w", sent+1, n, patience, err)
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
	return nil
}

// Close closes the socket.
func (s *Sender) Close() error {
	return unix.Close(s.fd)
}
