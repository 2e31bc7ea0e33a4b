// SPDX-License-Identifier: Apache-2.0

// Package manifests tests what users apply: config/ as kustomize renders it and the chart as helm does.
package manifests

import (
	"fmt"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const (
	root      = "../.."
	chart     = root + "/charts/xdp-operator"
	release   = "xdp-operator"
	namespace = "xdp-operator-system"
)

// objects holds objects by kind and name, for example "Deployment xdp-operator-controller".
type objects map[string]*unstructured.Unstructured

var separator = regexp.MustCompile(`(?m)^---.*\n`)

// add adds the objects of a file of YAML documents.
func (o objects) add(t *testing.T, name, content string) {
	t.Helper()
	for _, document := range separator.Split(content, -1) {
		object := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict([]byte(document), &object.Object); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, document)
		}
		if len(object.Object) == 0 {
			continue
		}
		key := object.GetKind() + " " + object.GetName()
		if o[key] != nil {
			t.Fatalf("%s: there are two of %s", name, key)
		}
		o[key] = object
	}
}

// accounts returns the service accounts among the objects.
func (o objects) accounts() objects {
	accounts := objects{}
	for key, object := range o {
		if object.GetKind() == "ServiceAccount" {
			accounts[key] = object
		}
	}
	return accounts
}

// yaml returns the objects as kubectl apply takes them.
func (o objects) yaml(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, key := range slices.Sorted(maps.Keys(o)) {
		document, err := yaml.Marshal(o[key].Object)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "---\n%s", document)
	}
	return out.String()
}

// fresh keeps go test from answering "(cached)" after a manifest has changed. The go command remembers a result as
// long as the files that the tests opened stay the same, but of these it looks only at those in this module, and the
// manifests are outside it. An opened file that is newer than two seconds makes it remember nothing.
func fresh(t *testing.T) {
	t.Helper()
	const file = "go.mod"
	if _, err := os.ReadFile(file); err != nil {
		t.Error(err)
	}
	t.Cleanup(func() {
		if now := time.Now(); os.Chtimes(file, now, now) != nil {
			t.Log("go test may remember this result: -count=1 forbids it")
		}
	})
}

// kustomize renders a folder of config/.
func kustomize(t *testing.T, folder string) objects {
	t.Helper()
	fresh(t)
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), root+"/config/"+folder)
	if err != nil {
		t.Fatal(err)
	}
	content, err := rendered.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	all := objects{}
	all.add(t, folder, string(content))
	return all
}

// helm renders the chart with the values given, YAML, over its own: all but the hooks. It returns what helm prints after
// an installation too.
func helm(t *testing.T, namespace, values string) (all objects, notes string) {
	t.Helper()
	all, notes = helmWithHooks(t, namespace, values)
	for key, object := range all {
		if hookOf(object) != "" {
			delete(all, key)
		}
	}
	return all, notes
}

// helmHooks renders what helm applies at that event.
func helmHooks(t *testing.T, event, values string) objects {
	t.Helper()
	all, _ := helmWithHooks(t, namespace, values)
	for key, object := range all {
		if hookOf(object) != event {
			delete(all, key)
		}
	}
	return all
}

func hookOf(object *unstructured.Unstructured) string { return object.GetAnnotations()["helm.sh/hook"] }

func helmWithHooks(t *testing.T, namespace, values string) (all objects, notes string) {
	t.Helper()
	files, err := render(t, namespace, values)
	if err != nil {
		t.Fatal(err)
	}
	all = objects{}
	for name, content := range files {
		switch path.Base(name) {
		case "NOTES.txt":
			notes = content
		default:
			all.add(t, name, content)
		}
	}
	return all, notes
}

// render returns the rendered files, or what is wrong with the values.
func render(t *testing.T, namespace, values string) (map[string]string, error) {
	t.Helper()
	fresh(t)
	loaded, err := loader.Load(chart)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		t.Fatal(err)
	}
	options := chartutil.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}
	input, err := chartutil.ToRenderValues(loaded, parsed, options, nil)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.Render(loaded, input)
}

// both renders both, for what must be true of either.
func both(t *testing.T) map[string]objects {
	t.Helper()
	installed, _ := helm(t, namespace, "")
	return map[string]objects{"kustomize": kustomize(t, "default"), "helm": installed}
}
