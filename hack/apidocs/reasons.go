// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// constantPrefix begins the names of the constants of reasons. In the documents it is left out.
var constantPrefix = regexp.MustCompile(`\bReason([A-Z])`)

// writeReasons writes a table for each group of reasons. It is an error if the comment of a constant is not the meaning
// in the table of reasons, or if the two have other reasons.
func writeReasons(out *strings.Builder, groups []group) error {
	written := 0
	for _, g := range groups {
		if !constantPrefix.MatchString(g.constants[0].name) {
			continue
		}
		fmt.Fprintf(out, "\n%s\n\n", cell(constantPrefix.ReplaceAllString(g.comment, "$1")))
		ready := v1alpha1.LookupReason(g.constants[0].value).Scope == v1alpha1.ScopeCounter
		if ready {
			out.WriteString("| reason | Ready | meaning | remedy |\n|---|---|---|---|\n")
		} else {
			out.WriteString("| reason | meaning | remedy |\n|---|---|---|\n")
		}
		for _, c := range g.constants {
			r := v1alpha1.LookupReason(c.value)
			if comment := strings.TrimSpace(c.comment); r.Meaning != comment {
				return fmt.Errorf("%s: the comment is %q, the table has %q", c.name, comment, r.Meaning)
			}
			fmt.Fprintf(out, "| [`%s`](troubleshooting.md#%s) | ", r.Reason, strings.ToLower(r.Reason))
			if ready {
				fmt.Fprintf(out, "%s | ", r.Status)
			}
			fmt.Fprintf(out, "%s | %s |\n", cell(r.Meaning), cell(r.Remedy))
			written++
		}
	}
	if reasons := len(v1alpha1.Reasons()); written != reasons {
		return fmt.Errorf("there are %d constants of reasons, and %d reasons in the table", written, reasons)
	}
	return nil
}

// The lines around the part of a section of docs/troubleshooting.md that is written here.
const (
	beginReason = "<!-- reason -->"
	endReason   = "<!-- end of reason -->"
)

// explained returns the text of docs/troubleshooting.md with what the table has on each reason. It is an error if a
// reason has no section, or a section of that form is of no reason.
func explained(text string) (string, error) {
	for _, r := range v1alpha1.Reasons() {
		begin := "### " + r.Reason + "\n" + beginReason + "\n"
		before, rest, begins := strings.Cut(text, begin)
		_, after, ends := strings.Cut(rest, endReason+"\n")
		if !begins || !ends {
			return "", fmt.Errorf("%s: no section of the form %q ... %q", troubleshooting, begin, endReason)
		}
		text = before + begin + explanation(r) + endReason + "\n" + after
	}
	if sections, reasons := strings.Count(text, "\n### "), len(v1alpha1.Reasons()); sections != reasons {
		return "", fmt.Errorf("%s: %d sections for %d reasons", troubleshooting, sections, reasons)
	}
	return text, nil
}

// explanation returns what the table has on a reason, as a list.
func explanation(r v1alpha1.ReasonInfo) string {
	var out strings.Builder
	item := func(name, text string) {
		if text != "" {
			fmt.Fprintf(&out, "- **%s:** %s\n", name, text)
		}
	}
	shown := strings.NewReplacer("{interface}", "eth0", "{counter}", "NAME", "{namespace}", "NAMESPACE")
	shell := func(command string) string {
		if command == "" {
			return ""
		}
		return "`" + shown.Replace(command) + "`"
	}
	item("Meaning", cell(r.Meaning))
	item("Ready", string(r.Status))
	item("Remedy", cell(r.Remedy))
	item("Command", shell(r.Kubectl))
	item("On the node", shell(r.OnNode))
	if r.Retry != "" {
		item("With Auto", "native mode is tried again when "+cell(r.Retry))
	}
	out.WriteByte('\n')
	return out.String()
}
