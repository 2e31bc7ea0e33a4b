// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// executables makes files of the names given in a new directory.
func executables(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestVersionIsThatOfTheModule(t *testing.T) {
	mod, err := os.ReadFile("kubernetes/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "k8s.io/kubernetes v" + KubernetesVersion + "\n"; !bytes.Contains(mod, []byte(want)) {
		t.Errorf("kubernetes/go.mod does not have %q", want)
	}
}

func TestBuildTargets(t *testing.T) {
	in := map[string]string{}
	for _, target := range buildTargets() {
		for _, name := range target.programs {
			if other, ok := in[name]; ok {
				t.Errorf("%s is in %s and in %s", name, other, target.binary)
			}
			in[name] = target.binary
		}
	}
	want := map[string]string{
		"etcd": "etcd", "kube-apiserver": "kubernetes", "kube-controller-manager": "kubernetes-controllers", "kubectl": "kubernetes",
		"kube-proxy": "kubernetes-node", "kube-scheduler": "kubernetes-node", "kubelet": "kubernetes-node",
	}
	if diff := cmp.Diff(want, in); diff != "" {
		t.Errorf("the binary of each program (-want +got):\n%s", diff)
	}
	for _, name := range binaries() {
		if in[name] == "kubernetes-node" {
			t.Errorf("Assets has to build kubelet to get %s", name)
		}
	}
}

// versions returns the version of each module that a package in dir is from.
func versions(t *testing.T, dir string, patterns ...string) map[string]string {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", append([]string{"list", "-deps", "-f", "{{with .Module}}{{.Path}} {{with .Replace}}{{.Version}}{{else}}{{.Version}}{{end}}{{end}}"}, patterns...)...)
	list.Dir, list.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if module, version, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			versions[module] = version
		}
	}
	return versions
}

func TestModulesOfTheProductHaveOneVersion(t *testing.T) {
	product, plane := versions(t, "../../..", "./cmd/...", "./hack/demo"), versions(t, "kubernetes", ".", "./etcd")
	shared := 0
	for module, version := range plane {
		switch of, ok := product[module]; {
		case !ok:
		case of != version:
			t.Errorf("%s is compiled twice: %s for the product, %s for the control plane", module, of, version)
		default:
			shared++
		}
	}
	if shared < 30 {
		t.Errorf("only %d modules are shared", shared)
	}
}

func TestControlPlaneHasNoNodePrograms(t *testing.T) {
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", ".")
	list.Dir, list.Env = "kubernetes", append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	for _, program := range []string{"kube-controller-manager", "kube-proxy", "kube-scheduler", "kubelet"} {
		if name := "k8s.io/kubernetes/cmd/" + program + "/app"; slices.Contains(packages, name) {
			t.Errorf("the binary of the control plane imports %s", name)
		}
	}
}

func TestCacheKeyChangesWithEachSource(t *testing.T) {
	source := t.TempDir()
	write := func(file, content string) {
		t.Helper()
		file = filepath.Join(source, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	keys := map[string]string{}
	check := func(step string) {
		t.Helper()
		key, err := cacheKey(source)
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := keys[key]; ok {
			t.Errorf("%s: the key is that of %q", step, before)
		}
		keys[key] = step
	}
	write("go.mod", "module kubernetes")
	write("main.go", "package main")
	check("at first")
	write("go.mod", "module other")
	check("another module file")
	write("node/main.go", "package main")
	check("another package")
	write("node/main.go", "package main\n")
	check("a change in that package")
}

func TestAssetsTakesEachFromTheFirstThatHasIt(t *testing.T) {
	source, err := sourceDir(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key, err := cacheKey(source)
	if err != nil {
		t.Fatal(err)
	}
	// assets calls Assets with binaries in the environment's directory and in the cache.
	assets := func(t *testing.T, given, cached []string) (got, givenDir, cacheDir string) {
		t.Helper()
		givenDir = executables(t, given...)
		root := t.TempDir()
		cacheDir = filepath.Join(root, "controlplane", key)
		if err := os.MkdirAll(filepath.Dir(cacheDir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(executables(t, cached...), cacheDir); err != nil {
			t.Fatal(err)
		}
		t.Setenv("KUBEBUILDER_ASSETS", givenDir)
		t.Setenv("XDP_OPERATOR_CACHE", root)
		got, err := Assets(t.Context(), t.Output())
		if err != nil {
			t.Fatal(err)
		}
		return got, givenDir, cacheDir
	}
	t.Run("all from the environment", func(t *testing.T) {
		got, given, _ := assets(t, binaries(), nil)
		if got != given {
			t.Errorf("got %s, want %s", got, given)
		}
	})
	t.Run("all from the cache", func(t *testing.T) {
		got, _, cache := assets(t, nil, binaries())
		if got != cache {
			t.Errorf("got %s, want %s", got, cache)
		}
	})
	t.Run("what setup-envtest leaves out comes from the cache", func(t *testing.T) {
		got, given, cache := assets(t, []string{"etcd", "kube-apiserver", "kubectl"}, binaries())
		targets := map[string]string{}
		for _, name := range binaries() {
			target, err := os.Readlink(filepath.Join(got, name))
			if err != nil {
				t.Fatal(err)
			}
			targets[name] = filepath.Dir(target)
		}
		want := map[string]string{"etcd": given, "kube-apiserver": given, "kubectl": given, "kube-controller-manager": cache}
		if diff := cmp.Diff(want, targets); diff != "" {
			t.Errorf("links (-want +got):\n%s", diff)
		}
	})
}

func TestDownload(t *testing.T) {
	const content = "a program"
	good := fmt.Sprintf("%x\n", sha256.Sum256([]byte(content)))
	for name, test := range map[string]struct {
		sum, want string
	}{
		"what agrees with its sum is kept": {good, ""},
		"what does not is thrown away":     {strings.Repeat("0", 64), "published is"},
		"what has no sum is not asked for": {"", "404 Not Found"},
	} {
		t.Run(name, func(t *testing.T) {
			path := fmt.Sprintf("/v%s/bin/%s/%s/kubectl", KubernetesVersion, runtime.GOOS, runtime.GOARCH)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == path:
					fmt.Fprint(w, content)
				case r.URL.Path == path+".sha256" && test.sum != "":
					fmt.Fprint(w, test.sum)
				default:
					http.NotFound(w, r)
				}
			}))
			defer server.Close()
			dir := t.TempDir()
			err := download(t.Context(), server.URL, dir, []string{"kubectl"}, &reporter{})
			left, globErr := filepath.Glob(filepath.Join(dir, "*"))
			if globErr != nil {
				t.Fatal(globErr)
			}
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) || left != nil {
					t.Errorf("got %v and files %v, want %q and none", err, left, test.want)
				}
				return
			}
			if err != nil || len(missing(dir, []string{"kubectl"})) != 0 {
				t.Errorf("got %v and files %v", err, left)
			}
		})
	}
}

func TestBuild(t *testing.T) {
	// program makes a module of one command.
	program := func(t *testing.T, body string) string {
		t.Helper()
		dir := t.TempDir()
		for name, content := range map[string]string{
			"go.mod": "module example.org/program\n\ngo 1.26\n", "main.go": "package main\n\nfunc main() { " + body + " }\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	t.Run("the binary is there and the progress says so", func(t *testing.T) {
		output := filepath.Join(t.TempDir(), "program")
		var progress bytes.Buffer
		err := buildPackages(t.Context(), "a program", program(t, "println()"), ".", "-s -w", output, &reporter{out: &progress})
		if err != nil || len(missing(filepath.Dir(output), []string{"program"})) != 0 {
			t.Errorf("got %v", err)
		}
		if got := progress.String(); !strings.HasPrefix(got, "controlplane: building a program from source, once, into ") ||
			!strings.Contains(got, "controlplane: built a program in ") {
			t.Errorf("progress is %q", got)
		}
	})
	t.Run("the compiler's errors are told and nothing is left", func(t *testing.T) {
		output := filepath.Join(t.TempDir(), "program")
		err := buildPackages(t.Context(), "a program", program(t, "nonsense()"), ".", "", output, &reporter{})
		if err == nil || !strings.Contains(err.Error(), "undefined: nonsense") {
			t.Errorf("got %v", err)
		}
		if left, _ := os.ReadDir(filepath.Dir(output)); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestLockMakesTheSecondWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), path, &reporter{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var progress bytes.Buffer
	if _, err := lock(ctx, path, &reporter{out: &progress}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it is held: got %v", err)
	}
	if !strings.Contains(progress.String(), "waiting for another run") {
		t.Errorf("progress is %q", progress.String())
	}
	unlock()
	unlock, err = lock(t.Context(), path, &reporter{})
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}
