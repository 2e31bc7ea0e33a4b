// SPDX-License-Identifier: Apache-2.0

// Package docs tests what is true of all documents.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	code    = regexp.MustCompile("`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+?) *$`)
	noWord  = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// anchors returns what GitHub lets a link point at within a document: its headings in lower case, without punctuation.
func anchors(text string) (list []string) {
	for _, h := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		words := noWord.ReplaceAllString(strings.ToLower(h[1]), "")
		list = append(list, strings.ReplaceAll(words, " ", "-"))
	}
	return list
}

// dead returns the links of a document that lead to no file, or to no heading of one. Those to other hosts are not tried.
func dead(t *testing.T, file string) (list []string) {
	t.Helper()
	text := read(t, file)
	prose := code.ReplaceAllString(fence.ReplaceAllString(text, ""), "")
	for _, found := range link.FindAllStringSubmatch(prose, -1) {
		path, anchor, _ := strings.Cut(found[1], "#")
		if strings.Contains(path, "://") {
			continue
		}
		target := file
		if path != "" {
			target = filepath.Join(filepath.Dir(file), path)
		}
		if _, err := os.Stat(target); err != nil || anchor != "" && !slices.Contains(anchors(read(t, target)), anchor) {
			list = append(list, found[1])
		}
	}
	return list
}

func read(t *testing.T, file string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestLinksLeadSomewhere(t *testing.T) {
	files := []string{root + "/charts/xdp-operator/README.md"}
	for pattern, atLeast := range map[string]int{"/*.md": 5, "/docs/*.md": 10, "/docs/adr/*.md": 10} {
		pages, err := filepath.Glob(root + pattern)
		if err != nil || len(pages) < atLeast {
			t.Fatalf("%s: %d pages: %v", pattern, len(pages), err)
		}
		files = append(files, pages...)
	}
	for _, file := range files {
		if list := dead(t, file); len(list) > 0 {
			t.Errorf("%s: dead links: %s", file, strings.Join(list, ", "))
		}
	}
}

func TestEveryPageIsLinkedFromTheReadme(t *testing.T) {
	readme := read(t, root+"/README.md")
	pages, err := filepath.Glob(root + "/docs/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if path := "docs/" + filepath.Base(page); filepath.Ext(page) == ".md" && !strings.Contains(readme, "]("+path) {
			t.Errorf("README.md does not lead to %s", path)
		}
	}
}

func TestDeadLinksAreFound(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	text := "# A `b`, c!\n[a](#a-b-c) [b](page.md#a-b-c) [c](https://example.com/x) `[d](d.md)`\n```\n[e](e.md)\n# f\n```\n[f](#f) [g](g.md)\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(dead(t, file), " "); got != "#f g.md" {
		t.Errorf("dead links: %s", got)
	}
}
