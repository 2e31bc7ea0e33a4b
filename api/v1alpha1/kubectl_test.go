// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/controlplane"
	"github.com/xdp-operator/xdp-operator/test/util/golden"
)

// kubectl runs kubectl against the API server.
func kubectl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	assets, err := controlplane.Assets(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), filepath.Join(assets, "kubectl"), append([]string{"--kubeconfig=" + plane.AdminKubeconfig()}, args...)...)
	command.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := command.CombinedOutput()
	return string(out), err
}

// makePhase creates a counter with the spec and the status of the phase. The name of the counter is that of the phase.
func makePhase(t *testing.T, phase string) *v1alpha1.XDPCounter {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("../../test/gitops/phases", phase+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	recorded, c := &v1alpha1.XDPCounter{}, &v1alpha1.XDPCounter{}
	if err := yaml.UnmarshalStrict(raw, recorded); err != nil {
		t.Fatal(err)
	}
	c.Name, c.Labels, c.Spec = phase, map[string]string{"shown": "true"}, recorded.Spec
	if err := api.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Delete(context.Background(), c) })
	c.Status = recorded.Status
	if err := api.Status().Update(t.Context(), c, client.FieldOwner("xdp-operator")); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestKubectlGetAndDescribe(t *testing.T) {
	phases := []string{
		"agent-silent", "bad-selector", "new", "no-interfaces", "no-nodes", "node-unreachable", "nothing-attached", "partially-attached",
		"ready", "reconciling", "suspended", "suspending",
	}
	for _, phase := range phases {
		makePhase(t, phase)
	}
	for file, args := range map[string][]string{
		"get.txt":      {"get", "xdpcounters", "--selector=shown"},
		"get-wide.txt": {"get", "xdpc", "--selector=shown", "--output=wide"},
	} {
		out, err := kubectl(t, args...)
		if err != nil {
			t.Fatal(err, out)
		}
		golden.Check(t, "testdata/"+file, withoutAge(out))
	}
	out, err := kubectl(t, "describe", "xdpcounter", "partially-attached")
	if err != nil {
		t.Fatal(err, out)
	}
	out = regexp.MustCompile(`(?m)^(  (?:Creation Timestamp|Resource Version|UID): +).*$`).ReplaceAllString(out, "${1}...")
	golden.Check(t, "testdata/describe.txt", out)
}

// withoutAge replaces the ages in a table by 0s. They vary by some seconds.
func withoutAge(table string) string {
	lines := strings.Split(strings.TrimRight(table, "\n"), "\n")
	at := strings.Index(lines[0], "AGE")
	for i, line := range lines[1:] {
		if at >= 0 && len(line) > at {
			rest := strings.TrimLeft(line[at:], "0123456789ms")
			lines[i+1] = line[:at] + "0s" + strings.Repeat(" ", max(0, len(line[at:])-len(rest)-2)) + rest
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func TestKubectlExplain(t *testing.T) {
	for _, field := range []string{
		"xdpcounter", "xdpcounter.spec", "xdpcounter.spec.interfaces", "xdpcounter.status", "xdpcounter.status.total",
		"xdpcounter.status.protocols", "xdpcounter.status.summary",
	} {
		out, err := kubectl(t, "explain", field)
		if err != nil {
			t.Fatal(err, out)
		}
		golden.Check(t, "testdata/explain-"+field+".txt", out)
	}
}

func TestKubectlWait(t *testing.T) {
	makePhase(t, "ready")
	makePhase(t, "suspended")
	makePhase(t, "new")
	makePhase(t, "partially-attached")
	wait := func(name string) error {
		out, err := kubectl(t, "wait", "--for=condition=Ready", "--timeout=1s", "xdpcounter/"+name)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	for _, name := range []string{"ready", "suspended"} {
		if err := wait(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"new", "partially-attached"} {
		if err := wait(name); err == nil || !strings.Contains(err.Error(), "timed out") {
			t.Errorf("%s: %v, want it to wait", name, err)
		}
	}
}

// Every property of the kinds has a description. The description of a quantity names its unit.
func TestFieldDescriptions(t *testing.T) {
	units := map[string]string{
		"packets": "number of frames|sum|share|total", "bytes": "length|sum|total|share",
		"packetsPerSecond": "rate|mean", "bitsPerSecond": "8 times", "pps": "packets per second", "bps": "bits per second",
		"mtu": "bytes", "reportInterval": "1s|interval",
	}
	fields := 0
	for _, kind := range []string{"xdpcounters", "xdpnodestates"} {
		raw, err := os.ReadFile("../../config/crd/bases/xdp-operator.io_" + kind + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		crd := definition{}
		if err := yaml.Unmarshal(raw, &crd); err != nil {
			t.Fatal(err)
		}
		for _, version := range crd.Spec.Versions {
			for _, column := range version.AdditionalPrinterColumns {
				if column.Description == "" {
					t.Errorf("column %s of %s has no description", column.Name, kind)
				}
			}
			walk(version.Schema.OpenAPIV3Schema.Properties, kind, func(path, name, description string) {
				fields++
				if strings.TrimSpace(description) == "" {
					t.Errorf("%s has no description", path)
				}
				if unit := units[name]; unit != "" && !regexp.MustCompile(unit).MatchString(description) {
					t.Errorf("the description of %s does not name its unit (%s): %s", path, unit, description)
				}
			})
		}
	}
	if fields < 100 {
		t.Errorf("only %d fields were checked", fields)
	}
}

// definition holds the checked fields of a CustomResourceDefinition.
type definition struct {
	Spec struct {
		Versions []struct {
			AdditionalPrinterColumns []struct{ Name, Description string }
			Schema                   struct{ OpenAPIV3Schema schema }
		}
	}
}

type schema struct {
	Description          string
	Properties           map[string]schema
	Items                *schema
	AdditionalProperties *schema
}

func walk(properties map[string]schema, path string, visit func(path, name, description string)) {
	for name, p := range properties {
		if name == "metadata" && !strings.Contains(path, ".") {
			continue // standard metadata of a kind
		}
		visit(path+"."+name, name, p.Description)
		walk(p.Properties, path+"."+name, visit)
		if p.Items != nil {
			walk(p.Items.Properties, path+"."+name+"[]", visit)
		}
		if p.AdditionalProperties != nil {
			walk(p.AdditionalProperties.Properties, path+"."+name+"{}", visit)
		}
	}
}
