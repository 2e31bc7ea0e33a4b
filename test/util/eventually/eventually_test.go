// SPDX-License-Identifier: Apache-2.0

package eventually

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestCheck(t *testing.T) {
	calls := 0
	Succeed(t, time.Minute, func() error {
		if calls++; calls < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if calls != 3 {
		t.Errorf("%d calls, want 3", calls)
	}
	never := errors.New("never")
	if err := Check(t.Context(), time.Millisecond, func() error { return never }); !errors.Is(err, never) || !strings.Contains(err.Error(), "after 1ms") {
		t.Errorf("after the timeout: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Check(ctx, time.Hour, func() error { return never }); !errors.Is(err, never) {
		t.Errorf("after the context is done: %v", err)
	}
}
