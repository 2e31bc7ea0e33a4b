// SPDX-License-Identifier: Apache-2.0

// Package gitops tests how GitOps tools evaluate XDPCounters, with the code of these tools: Argo CD's settings, Lua VM and
// change detection, and kstatus, which Flux uses. It also tests the YAML in docs/gitops.md with the types of both.
package gitops

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	argocd "github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/argo/normalizers"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/argo-cd/v3/util/settings"
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"
)

const (
	root     = "../.."
	document = root + "/docs/gitops.md"
	argocdCM = root + "/config/argocd/argocd-cm.yaml"
)

// phase reads the XDPCounter of a phase, which controllers/phases_test.go writes.
func phase(t *testing.T, name string) *unstructured.Unstructured {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("phases", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if raw, err = yaml.YAMLToJSON(raw); err != nil {
		t.Fatal(err)
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(raw); err != nil { // keeps integers as int64, which kstatus requires
		t.Fatal(err)
	}
	return object
}

func TestHealthOfPhases(t *testing.T) {
	vm := lua.VM{ResourceOverrides: argoSettings(t).overrides}
	cases := map[string]struct{ kstatus, argo, message string }{
		"new":                {"InProgress", "Progressing", "Waiting for the controller to see the latest spec"},
		"reconciling":        {"InProgress", "Progressing", "Pending: 1 of 2 nodes have not applied the spec yet: n2"},
		"ready":              {"Current", "Healthy", "AllInterfacesAttached: 2 interfaces are being counted on 2 nodes"},
		"recovered":          {"Current", "Healthy", "AllInterfacesAttached: 2 interfaces are being counted on 2 nodes"},
		"edited":             {"InProgress", "Progressing", "Waiting for the controller to see the latest spec"},
		"partially-attached": {"Failed", "Degraded", "PartiallyAttached: 1 of 2 nodes have failures: n2/eth2 (XDPHookInUse)"},
		"nothing-attached":   {"Failed", "Degraded", "NothingAttached: 2 of 2 nodes have failures: n1/eth0 (XDPHookInUse), n2/eth0 (MTUTooLarge)"},
		"no-nodes":           {"Failed", "Degraded", "NoNodesSelected: spec.nodeSelector selects no node"},
		"no-interfaces":      {"Failed", "Degraded", "NoInterfacesMatched: spec.interfaces selects no interface on 2 nodes: n1, n2"},
		"suspending":         {"InProgress", "Progressing", "Pending: waiting for 1 node to stop counting: n2"},
		"suspended":          {"Current", "Suspended", "Suspended: counting is suspended; the totals are kept"},
		"bad-selector":       {"Failed", "Degraded", `InvalidNodeSelector: spec.nodeSelector: key: Invalid value: "a b": name part must consist of`},
		"agent-silent":       {"Failed", "Degraded", "AgentNotReporting: 1 of 2 nodes have not reported in time: n2"},
		"node-unreachable":   {"Failed", "Degraded", "AgentNotReporting: 1 of 2 nodes have not reported in time: n2"},
		"deleting":           {"Terminating", "Healthy", "AllInterfacesAttached"}, // Argo CD shows the deletion beside it
	}
	for name, want := range cases {
		t.Run(name, func(t *testing.T) {
			object := phase(t, name)
			result, err := status.Compute(object)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(result.Status); got != want.kstatus {
				t.Errorf("kstatus says %s (%s), want %s", got, result.Message, want.kstatus)
			}
			script, libraries, err := vm.GetHealthScript(object)
			if err != nil || script == "" || libraries {
				t.Fatalf("the health script is %q, with all libraries %v, %v", script, libraries, err)
			}
			health, err := vm.ExecuteHealthLua(object, script)
			if err != nil {
				t.Fatal(err)
			}
			if string(health.Status) != want.argo || !strings.HasPrefix(health.Message, want.message) {
				t.Errorf("Argo CD says %s: %s; want %s: %s", health.Status, health.Message, want.argo, want.message)
			}
		})
	}
	files, err := filepath.Glob("phases/*.yaml")
	if err != nil || len(files) != len(cases) {
		t.Errorf("%d objects are recorded and %d judged, %v", len(files), len(cases), err)
	}
}

func TestHealthWithoutStatus(t *testing.T) {
	object := phase(t, "ready")
	unstructured.RemoveNestedField(object.Object, "status")
	script := argoSettings(t).overrides["xdp-operator.io/XDPCounter"].HealthLua
	health, err := lua.VM{}.ExecuteHealthLua(object, script)
	if err != nil || health.Status != "Progressing" {
		t.Errorf("Argo CD says %v, %v; want Progressing", health, err)
	}
}

type argo struct {
	overrides map[string]argocd.ResourceOverride
	ignored   map[string]argocd.ResourceOverride
	excluded  func(group, kind string) bool
}

// argoSettings returns Argo CD's settings from our ConfigMap, and additional key and value pairs.
func argoSettings(t *testing.T, others ...string) argo {
	t.Helper()
	raw, err := os.ReadFile(argocdCM)
	if err != nil {
		t.Fatal(err)
	}
	cm := &corev1.ConfigMap{}
	if err := yaml.UnmarshalStrict(raw, cm); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(others); i += 2 {
		cm.Data[others[i]] = others[i+1]
	}
	cm.Labels = map[string]string{"app.kubernetes.io/part-of": "argocd"} // as Argo CD's own ConfigMap
	manager := settings.NewSettingsManager(t.Context(), fake.NewClientset(cm), cm.Namespace)
	var a argo
	if a.overrides, err = manager.GetResourceOverrides(); err != nil {
		t.Fatal(err)
	}
	if a.ignored, err = manager.GetIgnoreResourceUpdatesOverrides(); err != nil {
		t.Fatal(err)
	}
	filter, err := manager.GetResourcesFilter()
	if err != nil {
		t.Fatal(err)
	}
	a.excluded = func(group, kind string) bool {
		return filter.IsExcludedResource(group, kind, "https://kubernetes.default.svc")
	}
	return a
}

// Argo CD refreshes an application when the health of a resource changes, or its normalized content (controller/cache in Argo
// CD). Since version 3, the normalizer removes the status by default.
func TestNoRefreshOnTraffic(t *testing.T) {
	before := phase(t, "ready")
	before.SetResourceVersion("100")
	grown := before.DeepCopy()
	grown.SetResourceVersion("101")
	busier := phase(t, "partially-attached") // with other counts
	for _, field := range []string{"total", "families", "protocols", "summary"} {
		value, ok, err := unstructured.NestedFieldCopy(busier.Object, "status", field)
		if err != nil || !ok {
			t.Fatalf("no status.%s: %v", field, err)
		}
		if err := unstructured.SetNestedField(grown.Object, value, "status", field); err != nil {
			t.Fatal(err)
		}
	}
	if err := unstructured.SetNestedField(grown.Object, "2026-01-01T13:00:00Z", "status", "lastReportTime"); err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]argo{
		"as it is":                      argoSettings(t),
		"that looks at every status":    argoSettings(t, "resource.compareoptions", "ignoreResourceStatusField: none\n"),
		"that has rules of its own too": argoSettings(t, "resource.customizations.ignoreResourceUpdates.all", "jsonPointers: [/metadata/labels/x]\n"),
	} {
		if a.sees(t, before, grown) {
			t.Errorf("an Argo CD %s sees a change where only totals grew", name)
		}
		for _, other := range []string{"reconciling", "agent-silent", "suspended", "edited"} {
			if !a.sees(t, before, phase(t, other)) {
				t.Errorf("an Argo CD %s sees no change from ready to %s", name, other)
			}
		}
		if !a.excluded("xdp-operator.io", "XDPNodeState") || a.excluded("xdp-operator.io", "XDPCounter") {
			t.Errorf("an Argo CD %s watches the node states, or no XDPCounters", name)
		}
	}
}

func (a argo) sees(t *testing.T, before, after *unstructured.Unstructured) bool {
	t.Helper()
	normalizer, err := normalizers.NewIgnoreNormalizer(nil, a.ignored, normalizers.IgnoreNormalizerOpts{})
	if err != nil {
		t.Fatal(err)
	}
	look := func(object *unstructured.Unstructured) (left, health string) {
		judged, err := lua.VM{}.ExecuteHealthLua(object, a.overrides["xdp-operator.io/XDPCounter"].HealthLua)
		if err != nil {
			t.Fatal(err)
		}
		object = object.DeepCopy()
		if err := normalizer.Normalize(object); err != nil {
			t.Fatal(err)
		}
		raw, err := object.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		return string(raw), string(judged.Status)
	}
	leftBefore, healthBefore := look(before)
	leftAfter, healthAfter := look(after)
	return leftBefore != leftAfter || healthBefore != healthAfter
}

func TestYAMLInDocs(t *testing.T) {
	raw, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	blocks := blocksOf(string(raw), "yaml")
	cm, err := os.ReadFile(argocdCM)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(blocks, string(cm)) {
		t.Errorf("%s does not show %s as it is", document, argocdCM)
	}
	kinds := map[string]any{ // decoders by kind
		"v1/ConfigMap": &corev1.ConfigMap{},
		"source.toolkit.fluxcd.io/v1/GitRepository":    &sourcev1.GitRepository{},
		"helm.toolkit.fluxcd.io/v2/HelmRelease":        &helmv2.HelmRelease{},
		"kustomize.toolkit.fluxcd.io/v1/Kustomization": &kustomizev1.Kustomization{},
		"argoproj.io/v1alpha1/Application":             &argocd.Application{},
	}
	seen := map[string]bool{}
	for _, block := range blocks {
		for text := range strings.SplitSeq(block, "\n---\n") {
			var meta metav1.TypeMeta
			if err := yaml.Unmarshal([]byte(text), &meta); err != nil {
				t.Fatalf("%v in\n%s", err, text)
			}
			kind := schema.FromAPIVersionAndKind(meta.APIVersion, meta.Kind)
			name := meta.APIVersion + "/" + kind.Kind
			into, known := kinds[name]
			if !known {
				t.Errorf("nobody knows %s", name)
				continue
			}
			seen[name] = true
			if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if len(seen) != len(kinds) {
		t.Errorf("only %v are shown", seen)
	}
	release := kinds["helm.toolkit.fluxcd.io/v2/HelmRelease"].(*helmv2.HelmRelease)
	chart := filepath.Join(root, release.Spec.Chart.Spec.Chart, "Chart.yaml")
	if _, err := os.Stat(chart); err != nil {
		t.Errorf("the HelmRelease names a chart that is not there: %v", err)
	}
}

// blocksOf returns the fenced code blocks of a language.
func blocksOf(markdown, language string) (blocks []string) {
	for _, part := range strings.Split(markdown, "```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		blocks = append(blocks, block)
	}
	return blocks
}

// TestReasonsInDocs checks that the document lists every reason of the Ready condition.
func TestReasonsInDocs(t *testing.T) {
	raw, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(root + "/api/v1alpha1/reasons.go")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := bytes.Cut(source, []byte("// Reasons of an XDPCounter's Ready condition"))
	list, _, _ = bytes.Cut(list, []byte("\n)"))
	reasons := 0
	for line := range strings.Lines(string(list)) {
		if _, value, ok := strings.Cut(line, `= "`); ok {
			reason, _, _ := strings.Cut(value, `"`)
			reasons++
			if !bytes.Contains(raw, []byte("`"+reason+"`")) {
				t.Errorf("%s says nothing of %s", document, reason)
			}
		}
	}
	if reasons < 10 {
		t.Errorf("only %d reasons found", reasons)
	}
}
