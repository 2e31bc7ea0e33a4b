// SPDX-License-Identifier: Apache-2.0

// Command apidocs writes docs/api.md from the CRDs, which controller-gen writes from the types, and from the constants and
// the table of reasons of api/v1alpha1. It also writes what docs/troubleshooting.md has from that table. Run it in the top
// folder of the clone.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// The files that are written.
const (
	page            = "docs/api.md"
	troubleshooting = "docs/troubleshooting.md"
)

// crds are the files that it tells of, in its order.
var crds = []string{
	"config/crd/bases/xdp-operator.io_xdpcounters.yaml",
	"config/crd/bases/xdp-operator.io_xdpnodestates.yaml",
}

func main() {
	if err := run("."); err != nil {
		fmt.Fprintln(os.Stderr, "apidocs:", err)
		os.Exit(1)
	}
}

// run writes the files. root is the top folder of the clone.
func run(root string) error {
	text, err := document(root)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, page), []byte(text), 0o644); err != nil {
		return err
	}
	file := filepath.Join(root, troubleshooting)
	now, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if text, err = explained(string(now)); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

const introduction = `# API reference

<!-- Written by make manifests from config/crd/bases, api/v1alpha1/conditions.go and api/v1alpha1/reasons.go. -->

Two kinds, both of the whole cluster (without a namespace). People write XDPCounters. XDPNodeStates are between controller
and agents: to be read, and written by nobody else. ` + "`kubectl explain xdpcounter.spec`" + ` says the same in a terminal.

In the tables ` + "`a[].b`" + ` is the field b of each item of the list a, **required** what has to be there if the
object around it is, and *default* what the API server fills in.
`

const ofConditions = `
## Conditions and reasons

Both are constants of the API: alerts and scripts may rely on them. Each reason links to its section in
[troubleshooting.md](troubleshooting.md). How conditions
and reasons go together is in [gitops.md](gitops.md#what-its-conditions-say).
`

// document returns the page. root is the top folder of the clone.
func document(root string) (string, error) {
	var out strings.Builder
	out.WriteString(introduction)
	for _, file := range crds {
		d, err := read(filepath.Join(root, file))
		if err != nil {
			return "", err
		}
		d.write(&out)
	}
	out.WriteString(ofConditions)
	groups, err := constants(filepath.Join(root, "api/v1alpha1/conditions.go"))
	if err != nil {
		return "", err
	}
	reasons, err := constants(filepath.Join(root, "api/v1alpha1/reasons.go"))
	if err != nil {
		return "", err
	}
	for _, g := range groups {
		if strings.HasPrefix(g.constants[0].name, "Event") {
			if err := writeReasons(&out, reasons); err != nil {
				return "", err
			}
		}
		g.write(&out)
	}
	return out.String(), nil
}

// definition is what the page tells of a CustomResourceDefinition.
type definition struct {
	Spec struct {
		Group string `json:"group"`
		Names struct {
			Kind       string   `json:"kind"`
			Plural     string   `json:"plural"`
			ShortNames []string `json:"shortNames"`
		} `json:"names"`
		Versions []version `json:"versions"`
	} `json:"spec"`
}

type version struct {
	Name    string   `json:"name"`
	Columns []column `json:"additionalPrinterColumns"`
	Schema  struct {
		Object schema `json:"openAPIV3Schema"`
	} `json:"schema"`
}

// column is one of kubectl get.
type column struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Path        string `json:"jsonPath"`
	Priority    int    `json:"priority"`
}

func read(file string) (d definition, err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return d, err
	}
	if err := yaml.Unmarshal(raw, &d); err != nil {
		return d, fmt.Errorf("read %s: %w", file, err)
	}
	if len(d.Spec.Versions) != 1 {
		return d, fmt.Errorf("read %s: %d versions, the page is of one", file, len(d.Spec.Versions))
	}
	return d, nil
}

func (d definition) write(out *strings.Builder) {
	names, v := d.Spec.Names, d.Spec.Versions[0]
	fmt.Fprintf(out, "\n## %s\n\n%s\n\n", names.Kind, cell(v.Schema.Object.Description))
	fmt.Fprintf(out, "`apiVersion: %s/%s`, `kind: %s`; for kubectl `%s`, or `%s` for short.\n",
		d.Spec.Group, v.Name, names.Kind, names.Plural, strings.Join(names.ShortNames, "`, `"))
	for _, part := range []string{"spec", "status"} {
		fmt.Fprintf(out, "\n### %s.%s\n\n| field | type | default and rules | meaning |\n|---|---|---|---|\n", names.Kind, part)
		v.Schema.Object.Properties[part].write(out, part, false)
	}
	fmt.Fprintf(out, "\n### Columns of kubectl get %s\n\n| column | from | meaning |\n|---|---|---|\n", names.Plural)
	for _, c := range v.Columns {
		name := strings.ToUpper(c.Name)
		if c.Priority > 0 {
			name += " (`-o wide`)"
		}
		fmt.Fprintf(out, "| %s | `%s` | %s |\n", name, c.Path, cell(c.Description))
	}
}

// literal keeps Markdown from reading signs of its own out of a description.
var literal = strings.NewReplacer(`\`, `\\`, "|", `\|`, "*", `\*`, "_", `\_`, "<", "&lt;", "[", `\[`, "]", `\]`)

// cell returns a text as it can stand in a table.
func cell(text string) string {
	return literal.Replace(strings.Join(strings.Fields(text), " "))
}
