// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func promtool(t *testing.T, in []byte, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program("promtool"), args...)
	cmd.Stdin = bytes.NewReader(in)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestAlerts tests the alerts with promtool and artificial series, with the real durations.
func TestAlerts(t *testing.T) {
	dir := t.TempDir()
	file := rules(t)
	promtool(t, nil, "check", "rules", "--lint-fatal", write(t, file, dir, "rules.yaml"))
	tests, err := os.ReadFile("testdata/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, nil, "test", "rules", write(t, tests, dir, "alerts.yaml"))
	for _, name := range alerts(t, file) {
		if !strings.Contains(string(tests), "alertname: "+name+"\n") {
			t.Errorf("testdata/alerts.yaml has no test of %s", name)
		}
	}
}
