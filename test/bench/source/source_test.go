// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"strings"
	"testing"
	"time"
)

// serveLoopback serves on the loopback interface until the test ends, and returns the address and a function that ends it before
// and returns its error.
func serveLoopback(t *testing.T) (address string, end func() error) {
	t.Helper()
	s, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(cancel)
	return s.listener.Addr().String(), func() error {
		cancel()
		return <-done
	}
}

func TestReceive(t *testing.T) {
	address, end := serveLoopback(t)
	const least = 20 * time.Millisecond
	for range 2 { // the source serves one receiver after the other
		for name, ask := range map[string]func(context.Context, string) (*Receiver, error){"stream": Stream, "datagrams": Datagrams} {
			r, err := ask(t.Context(), address)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			bytes, took, err := r.Receive(least)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if took < least || bytes < payloadBytes {
				t.Errorf("%s: %d bytes in %s", name, bytes, took)
			}
			if name == "datagrams" && bytes%payloadBytes != 0 {
				t.Errorf("%d bytes are no whole number of datagrams", bytes)
			}
			if err := r.Close(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if err := end(); err != nil {
		t.Errorf("the end of the context is an error of Serve: %v", err)
	}
}

func TestServeRejectsUnknownRequest(t *testing.T) {
	s, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context()) }()
	conn, err := request(t.Context(), s.listener.Addr().String(), "coffee")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := <-done; err == nil || !strings.Contains(err.Error(), `unknown request "coffee`) {
		t.Errorf("the error is %v", err)
	}
}
