// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"
)

// features are the columns of the support table. It is "yes" if every one of the findings is.
var features = []struct {
	title string
	keys  []string // of result.findings
}{
	{"generic", []string{"Generic"}},
	{"native: veth", []string{"NativeVeth"}},
	{"native: virtio_net", []string{"NativeVirtio"}},
	{"native: jumbo frames", []string{"NativeJumbo"}},
	{"update without a gap", []string{"Update"}},
	{"dispatcher", []string{"Dispatcher"}},
	{"fastcall", []string{"Fastcall"}},
	{"lockdown: integrity", underLockdown("integrity")},
	{"lockdown: confidentiality", underLockdown("confidentiality")},
}

// underLockdown are the findings that have to be there again.
func underLockdown(level string) (keys []string) {
	for _, feature := range []string{"Generic", "NativeVeth", "NativeVirtio", "Update"} {
		keys = append(keys, level+feature)
	}
	return keys
}

// table is the support table in Markdown.
func table(results []*result) string {
	var b strings.Builder
	b.WriteString("| Linux | tested |")
	for _, f := range features {
		fmt.Fprintf(&b, " %s |", f.title)
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(features)) + "\n")
	for _, r := range results {
		upstream, _, _ := strings.Cut(r.kernel.version, "-")
		fmt.Fprintf(&b, "| %s | %s |", r.kernel.wanted, upstream)
		for _, f := range features {
			fmt.Fprintf(&b, " %s |", r.cell(f.keys))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (r *result) cell(keys []string) string {
	for _, key := range keys {
		switch finding, ok := r.findings[key]; {
		case !ok:
			return "unknown"
		case !finding.Is:
			return "no"
		}
	}
	return "yes"
}

// timings returns the durations.
func timings(results []*result) string {
	var b strings.Builder
	for _, r := range results {
		passed := 0
		for _, p := range r.packages {
			passed += p.passed
		}
		fmt.Fprintf(&b, "%-5s %-26s up after %4.1f s, %d tests passed, %5.1f s in all\n",
			r.kernel.wanted, r.release, r.booted.Seconds(), passed, r.took.Seconds())
		for _, l := range r.left {
			fmt.Fprintf(&b, "      not run: %s: %s\n", l.Name, l.Why)
		}
	}
	return b.String()
}

// What stands around the table in the document.
const (
	tableBegin = "<!-- The table is written by make test-kernels WRITE=1. -->\n"
	tableEnd   = "<!-- The end of the table. -->\n"
)

// replaceTable puts the table into the document, in the place of the one that is there.
func replaceTable(document, table string) error {
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	before, rest, begun := strings.Cut(string(text), tableBegin)
	_, after, ended := strings.Cut(rest, tableEnd)
	if !begun || !ended {
		return fmt.Errorf("%s has no place for the table", document)
	}
	return os.WriteFile(document, []byte(before+tableBegin+"\n"+table+"\n"+tableEnd+after), 0o644)
}
