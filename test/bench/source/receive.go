// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Receiver receives a stream or datagrams. Its methods block the calling thread.
type Receiver struct {
	control net.Conn
	socket  *os.File // the stream's or the datagrams'
	buffer  []byte
}

// Stream asks the source at the address for a stream. The socket belongs to the network namespace of the calling thread.
func Stream(ctx context.Context, address string) (*Receiver, error) {
	conn, err := request(ctx, address, streamRequest)
	if err != nil {
		return nil, err
	}
	socket, err := blocking(conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &Receiver{control: conn, socket: socket, buffer: make([]byte, chunkBytes)}, nil
}

// Datagrams asks the source at the address for datagrams. The sockets belong to the network namespace of the calling thread.
func Datagrams(ctx context.Context, address string) (_ *Receiver, err error) {
	dialer := net.Dialer{Timeout: patience}
	control, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	r := &Receiver{control: control, buffer: make([]byte, FrameBytes)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	local := control.LocalAddr().(*net.TCPAddr)
	in, err := net.ListenUDP("udp", &net.UDPAddr{IP: local.IP, Port: local.Port})
	if err != nil {
		return r, err
	}
	defer in.Close() // socket is a duplicate
	if r.socket, err = blocking(in); err != nil {
		return r, err
	}
	_, err = fmt.Fprintln(control, datagramsRequest)
	return r, err
}

func request(ctx context.Context, address, what string) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: patience}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintln(conn, what); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn.(*net.TCPConn), nil
}

// Receive receives for at least so long, and returns the bytes of payload and how long it took.
func (r *Receiver) Receive(least time.Duration) (bytes uint64, took time.Duration, err error) {
	for began := time.Now(); ; {
		n, _, err := unix.Recvfrom(int(r.socket.Fd()), r.buffer, 0)
		took = time.Since(began)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, 0, fmt.Errorf("receive: %w", err)
		case n == 0:
			return 0, 0, errors.New("receive: the source has closed the connection")
		}
		bytes += uint64(max(n, 0))
		if took >= least {
			return bytes, took, nil
		}
	}
}

// Close ends what the source sends.
func (r *Receiver) Close() error {
	errs := []error{r.control.Close()}
	if r.socket != nil {
		errs = append(errs, r.socket.Close())
	}
	return errors.Join(errs...)
}
