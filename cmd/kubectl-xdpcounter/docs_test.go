package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestTheDocsShowWhatIsPrinted: every output in the documentation stands in a golden file.
func TestTheDocsShowWhatIsPrinted(t *testing.T) {
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
		t.Errorf("there are %d outputs only", len(blocks))
	}
	for _, block := range blocks {
		block, _, _ = strings.Cut(block, "```")
		command, output, _ := strings.Cut(block, "\n")
		if !strings.HasPrefix(command, "$ kubectl xdpcounter ") || !strings.Contains(printed.String(), output) {
			t.Errorf("is not what is printed:\n%s", block)
		}
	}
}

// TestTheDocsListTheStatuses: what the program knows and what the documentation says are the same.
func TestTheDocsListTheStatuses(t *testing.T) {
	docs := readFile(t, "../../docs/kubectl-xdpcounter.md")
	for status, about := range map[int]string{
		2: "| 2 | the command line |", 3: "| 3 | no such XDPCounter", 4: "| 4 | `why`: not Ready |", 5: "| 5 | a right is missing",
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
