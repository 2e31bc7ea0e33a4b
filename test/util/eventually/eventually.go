// SPDX-License-Identifier: Apache-2.0

// Package eventually waits for what is true only after some time.
package eventually

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// interval is the time between two checks.
const interval = 20 * time.Millisecond

// Check calls check until it returns nil. After the timeout, or when ctx is done, it returns check's last error.
func Check(ctx context.Context, timeout time.Duration, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("after %v: %w", timeout, err)
		case <-time.After(interval):
		}
	}
}

// Succeed is Check for tests: the test fails if check does not return nil within the timeout.
func Succeed(t testing.TB, timeout time.Duration, check func() error) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // which is done before the cleanups of the test
	if err := Check(ctx, timeout, check); err != nil {
		t.Fatal(err)
	}
}
