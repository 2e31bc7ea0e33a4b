// SPDX-License-Identifier: Apache-2.0

package netnscluster

import (
	"os"
	"path/filepath"
	"testing"
)

func TestADataRaceInALogIsFound(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("controller.log", "{\"msg\":\"Starting\"}\n")
	if err := races(dir); err != nil {
		t.Errorf("without a race: %v", err)
	}
	write("agent-n1.log", "a line\n==================\nWARNING: DATA RACE\nWrite at 0x1\n==================\nanother line\n")
	if err := races(dir); err == nil || err.Error() != "data race in agent-n1.log:\nWrite at 0x1\n" {
		t.Errorf("got %v", err)
	}
}
