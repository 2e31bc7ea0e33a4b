// SPDX-License-Identifier: Apache-2.0

package gobuild

import (
	"slices"
	"testing"
)

func TestEnv(t *testing.T) {
	t.Setenv("GOGC", "")
	if env := Env("GOARCH=arm64"); !slices.Contains(env, "GOGC=400") || !slices.Contains(env, "GOARCH=arm64") {
		t.Errorf("got %q", env)
	}
	t.Setenv("GOGC", "50")
	if env := Env(); slices.Contains(env, "GOGC=400") || !slices.Contains(env, "GOGC=50") {
		t.Errorf("what the caller has set is changed: %q", env)
	}
}
