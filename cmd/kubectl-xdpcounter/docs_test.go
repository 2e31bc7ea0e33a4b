// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestOutputInDocs checks that every output in the documentation is part of a golden file.
func TestOutputInDocs(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	var printed strings.Builder
	for _, path := range paths {
		printed.WriteString(readFile(t, path))
	}
	blocks := strings.Split(readFile(t, "../../docs/kubectl-xdpcounter.md"), "```console\n")[1:]
	if len(blocks) < 4 {
		t.Errorf("only %d outputs", len(blocks))
	}
	for _, block := range blocks {
		block, _, _ = strings.Cut(block, "```")
		command, output, _ := strings.Cut(block, "\n")
		if !strings.HasPrefix(command, "$ kubectl xdpcounter ") || !strings.Contains(printed.String(), output) {
			t.Errorf("not part of a golden file:\n%s", block)
		}
	}
}

// TestStatusesInDocs checks that the documentation lists the exit statuses.
func TestStatusesInDocs(t *testing.T) {
	docs := readFile(t, "../../docs/kubectl-xdpcounter.md")
	for status, about := range map[int]string{
		2: "| 2 | the command line |", 3: "| 3 | no such XDPCounter", 4: "| 4 | `why`: not Ready |", 5: "| 5 | missing permission",
		6: "| 6 | xdp-operator is not installed", 7: "| 7 | the API server does not answer |",
	} {
		known := false
		for _, s := range statuses {
			known = known || s.Status == status
		}
		if !known || !strings.Contains(docs, about) {
			t.Errorf("status %d: known %v, or not in the docs: %s", status, known, about)
		}
	}
}
