// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xdp-operator/xdp-operator/test/util/golden"
)

// The page is as make manifests writes it.
func TestThePageIsCurrent(t *testing.T) {
	const root = "../.."
	text, err := document(root)
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, filepath.Join(root, page), text)
}

// What docs/troubleshooting.md has from the table of reasons is as make manifests writes it, and every reason has a section.
func TestTroubleshootingIsCurrent(t *testing.T) {
	file := filepath.Join("../..", troubleshooting)
	now, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := explained(string(now))
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, file, text)
}

func TestSectionsOfReasons(t *testing.T) {
	now, err := os.ReadFile(filepath.Join("../..", troubleshooting))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"a reason without a section": strings.Replace(string(now), "### NoEthernet\n", "### Other\n", 1),
		"a section that is of none":  string(now) + "\n### Other\n",
		"a section without its end":  strings.ReplaceAll(string(now), endReason, ""),
	} {
		if _, err := explained(text); err == nil {
			t.Errorf("%s is no error", name)
		}
	}
}

func TestRules(t *testing.T) {
	one, ten := int64(1), int64(10)
	for name, c := range map[string]struct {
		s          schema
		kind, rule string
	}{
		"a string with a default and a choice": {
			schema{Type: "string", Default: []byte(`"Auto"`), Enum: []string{"Auto", "Native"}}, "string", "*default* `Auto`|`Auto`, `Native`"},
		"a number with bounds": {schema{Type: "integer", Format: "int32", Minimum: &one, Maximum: &ten}, "int32", "1 to 10"},
		"a list of short strings": {
			schema{Type: "array", MinItems: &one, ListType: "set", Items: &schema{Type: "string", MaxLength: &ten}}, "list of string",
			"none twice|at least 1 items|each: at most 10 characters"},
		"a map of times": {schema{Type: "object", Values: &schema{Type: "string", Format: "date-time"}}, "map of time, RFC 3339", ""},
		"an expression":  {schema{Type: "string", Pattern: "^(a|b)$"}, "string", `matches ` + "`^(a\\|b)$`"},
	} {
		t.Run(name, func(t *testing.T) {
			rule := ""
			for i, r := range c.s.rules() {
				if i > 0 {
					rule += "|"
				}
				rule += r
			}
			if kind := c.s.kind(); kind != c.kind || rule != c.rule {
				t.Errorf("%q, %q", kind, rule)
			}
		})
	}
}
