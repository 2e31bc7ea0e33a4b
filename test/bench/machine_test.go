// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMachine(t *testing.T) {
	for name, tc := range map[string]struct{ cpuinfo, want string }{
		"amd64":      {"processor\t: 0\nmodel name\t: A CPU @ 2.50GHz\nmodel name\t: another\n", "A CPU @ 2.50GHz"},
		"arm64":      {"processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n", "0xd0c"},
		"none of it": {"processor\t: 0\n", "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "cpuinfo")
			if err := os.WriteFile(file, []byte(tc.cpuinfo), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := cpuModel(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestMitigations(t *testing.T) {
	directory := t.TempDir()
	for name, text := range map[string]string{"meltdown": "Not affected\n", "retbleed": "Mitigation: Enhanced IBRS\n"} {
		if err := os.WriteFile(filepath.Join(directory, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := mitigations(directory)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"retbleed: Mitigation: Enhanced IBRS"}, got); diff != "" {
		t.Errorf("mitigations (-want +got):\n%s", diff)
	}
}
