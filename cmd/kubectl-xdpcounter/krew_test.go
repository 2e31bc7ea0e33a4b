// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	"sigs.k8s.io/yaml"
)

// manifest is a plugin manifest of krew (https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest/). Unknown fields are
// errors, as in krew.
type manifest struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Version          string `json:"version"`
		Homepage         string `json:"homepage"`
		ShortDescription string `json:"shortDescription"`
		Description      string `json:"description"`
		Caveats          string `json:"caveats"`
		Platforms        []struct {
			Selector struct {
				MatchLabels map[string]string `json:"matchLabels"`
			} `json:"selector"`
			URI    string `json:"uri"`
			SHA256 string `json:"sha256"`
			Bin    string `json:"bin"`
		} `json:"platforms"`
	} `json:"spec"`
}

// krewManifest renders the template as krew-release-bot does. There, addURIAndSha downloads the archive of the release, and
// returns two lines with the indentation of a platform.
func krewManifest(t *testing.T, tag string) manifest {
	t.Helper()
	type release struct{ TagName string }
	render := func(text string, functions template.FuncMap) string {
		parsed, err := template.New("").Funcs(functions).Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := parsed.Execute(&b, release{tag}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	text := render(readFile(t, "../../.krew.yaml"), template.FuncMap{"addURIAndSha": func(uri, _ string) string {
		return fmt.Sprintf("uri: %s\n    sha256: %s", render(uri, nil), strings.Repeat("ab", 32))
	}})
	var m manifest
	if err := yaml.UnmarshalStrict([]byte(text), &m); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return m
}

func TestKrewManifest(t *testing.T) {
	const tag = "v1.2.3"
	m := krewManifest(t, tag)
	if m.APIVersion != "krew.googlecontainertools.github.com/v1alpha2" || m.Kind != "Plugin" || m.Metadata.Name != "xdpcounter" || m.Spec.Version != tag {
		t.Errorf("manifest of another plugin: %+v", m)
	}
	if m.Spec.Homepage != "https://github.com/xdp-operator/xdp-operator" || m.Spec.Description == "" || m.Spec.Caveats == "" {
		t.Errorf("a description is missing: %+v", m.Spec)
	}
	if n := len(m.Spec.ShortDescription); n == 0 || n > 50 || strings.HasSuffix(m.Spec.ShortDescription, ".") {
		t.Errorf("the short description has %d bytes: krew allows at most 50, and no dot at the end", n)
	}
	var platforms []string
	for _, p := range m.Spec.Platforms {
		platform := p.Selector.MatchLabels["os"] + "_" + p.Selector.MatchLabels["arch"]
		platforms = append(platforms, platform)
		want := m.Spec.Homepage + "/releases/download/" + tag + "/kubectl-xdpcounter_" + platform + ".tar.gz"
		if p.URI != want || len(p.SHA256) != 64 || p.Bin != "kubectl-xdpcounter" {
			t.Errorf("%s: %+v, want %s", platform, p, want)
		}
	}
	built := regexp.MustCompile(`(?m)^PLUGIN_PLATFORMS := (.*)$`).FindStringSubmatch(readFile(t, "../../Makefile"))
	if built == nil || !slices.Equal(strings.Fields(built[1]), platforms) {
		t.Errorf("the manifest lists %v, and make plugin-archives builds %v", platforms, built)
	}
}
