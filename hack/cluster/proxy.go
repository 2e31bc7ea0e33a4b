// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// The API server listens in the sandbox, which no packet of the machine reaches. A socket belongs to the network
// namespace that it was made in: one that is made outside and inherited lets the inside take connections of the
// machine's 127.0.0.1, and ends with the sandbox.

// listenerFD is the descriptor that is inherited, far from those that os/exec hands on.
const listenerFD = 100

// listenOutside opens the socket.
func listenOutside() error {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for clients of the API server: %w", err)
	}
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	// Without O_CLOEXEC.
	if err := unix.Dup3(int(file.Fd()), listenerFD, 0); err != nil {
		return fmt.Errorf("hand on the socket for clients of the API server: %w", err)
	}
	return errors.Join(file.Close(), listener.Close())
}

// proxy carries connections from the machine to the API server.
type proxy struct{ listener net.Listener }

// inheritProxy takes over the socket of listenOutside.
func inheritProxy() (*proxy, error) {
	file := os.NewFile(listenerFD, "listener")
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("take over the socket for clients of the API server: %w", err)
	}
	return &proxy{listener}, file.Close()
}

// address returns where clients on the machine connect to: "127.0.0.1:PORT".
func (p *proxy) address() string { return p.listener.Addr().String() }

// serve carries connections to server, "HOST:PORT", as long as this process lives.
func (p *proxy) serve(server string) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "cluster: accept a client of the API server:", err)
			return
		}
		go carry(client, server)
	}
}

func carry(client net.Conn, server string) {
	defer func() { _ = client.Close() }()
	api, err := net.Dial("tcp", server) //nolint:noctx // it answers or fails at once
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err) // the API server is down, and clients get an error
		return
	}
	defer func() { _ = api.Close() }()
	go func() {
		_, _ = io.Copy(api, client)
		_ = api.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(client, api)
}
