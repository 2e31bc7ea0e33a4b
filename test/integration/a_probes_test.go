// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
)

// These tests run first, while the processes that TestMain started still run.

func TestControllerProbes(t *testing.T) {
	for _, path := range []string{"healthz", "readyz"} {
		eventually(t, func() error { return probe(t.Context(), controllerProbes, path) })
	}
}

func TestAgentProbes(t *testing.T) {
	for _, n := range c.Nodes() {
		for _, path := range []string{"healthz", "readyz"} {
			eventually(t, func() error {
				return n.Do(func() error { return probe(t.Context(), agentProbes, path) })
			})
		}
	}
}

// probe sends a request from the network namespace of the calling thread. An http.Client would dial on another thread.
func probe(ctx context.Context, address, path string) error {
	connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/"+path, nil)
	if err != nil {
		return err
	}
	if err := request.Write(connection); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		return fmt.Errorf("%s of %s is %s: %s", path, address, response.Status, body)
	}
	return nil
}
