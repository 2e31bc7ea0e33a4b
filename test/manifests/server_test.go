// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// server is the API server of all tests of this package, which the first of them starts.
type server struct {
	envtest.Environment
	dir string
}

var running *server

var start = sync.OnceValues(func() (*server, error) {
	// The binaries are downloaded by a command of the repository, because its package is in another module.
	get := exec.CommandContext(context.Background(), "go", "run", "-C", root, "./hack/controlplane")
	get.Stderr = os.Stderr
	assets, err := get.Output()
	if err != nil {
		return nil, fmt.Errorf("get the API server: %w", err)
	}
	dir, err := os.MkdirTemp("", "manifests-")
	if err != nil {
		return nil, err
	}
	running = &server{dir: dir, Environment: envtest.Environment{
		BinaryAssetsDirectory: strings.TrimSpace(string(assets)),
		CRDDirectoryPaths:     []string{root + "/config/crd/bases"},
		ErrorIfCRDPathMissing: true,
	}}
	if _, err := running.Start(); err != nil {
		return nil, err
	}
	return running, os.WriteFile(running.kubeconfig(), running.KubeConfig, 0o600)
})

func TestMain(m *testing.M) {
	status := m.Run()
	if running != nil {
		if err := errors.Join(running.Stop(), os.RemoveAll(running.dir)); err != nil {
			fmt.Fprintln(os.Stderr, "stop the API server:", err)
			status = 1
		}
	}
	os.Exit(status)
}

func apiServer(t *testing.T) *server {
	t.Helper()
	s, err := start()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) kubeconfig() string { return filepath.Join(s.dir, "kubeconfig") }

// kubectl runs kubectl with the objects as its input.
func (s *server) kubectl(t *testing.T, all objects, args ...string) (string, error) {
	t.Helper()
	kubectl := exec.CommandContext(t.Context(), s.ControlPlane.KubectlPath, append([]string{"--kubeconfig=" + s.kubeconfig()}, args...)...)
	kubectl.Stdin = strings.NewReader(all.yaml(t))
	out, err := kubectl.CombinedOutput()
	return string(out), err
}

// apply applies the objects with the strictest validation.
func (s *server) apply(t *testing.T, all objects, flags ...string) {
	t.Helper()
	out, err := s.kubectl(t, all, append([]string{"apply", "--server-side", "--force-conflicts", "--validate=strict", "-f-"}, flags...)...)
	if err != nil || strings.Contains(out, "Warning") {
		t.Errorf("kubectl apply: %v\n%s", err, out)
	}
	if got := strings.Count(out, " serverside-applied"); got != len(all) {
		t.Errorf("%d of %d objects applied:\n%s", got, len(all), out)
	}
}

// TestAPIServerAcceptsObjects validates all objects with a real API server: unknown fields, schemas, the rules in the CRDs,
// and the expressions of the admission policy.
func TestAPIServerAcceptsObjects(t *testing.T) {
	s := apiServer(t)
	rendered := both(t)
	namespaceOnly := "Namespace " + namespace
	s.apply(t, objects{namespaceOnly: rendered["kustomize"][namespaceOnly]})
	for _, folder := range []string{"uninstall", "sweep"} {
		rendered["kustomize/"+folder] = kustomize(t, folder)
	}
	for _, event := range []string{"pre-delete", "test"} {
		rendered["helm/"+event] = helmHooks(t, event, "")
	}
	rendered["helm with every option"], _ = helm(t, namespace, `
image: {pullSecrets: [{name: key}]}
manager: {env: [{name: A, value: b}], podLabels: {a: b}, podAnnotations: {a: b}, topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app.kubernetes.io/component: controller}}}]}
agent: {env: [{name: A, value: b}], podLabels: {a: b}, podAnnotations: {a: b}, capabilities: {sysResource: true, sysAdmin: true}, appArmorProfile: {type: RuntimeDefault}}
metrics: {certSecret: tls}
networkPolicy: {enabled: true, metricsFrom: [{podSelector: {}}]}
`)
	for name, all := range rendered {
		t.Run(name, func(t *testing.T) { s.apply(t, all, "--dry-run=server") })
	}
	t.Run("samples", func(t *testing.T) { s.apply(t, kustomize(t, "samples"), "--dry-run=server") })
	t.Run("invalid object", func(t *testing.T) {
		wrong := kustomize(t, "agent")
		for _, object := range wrong {
			object.Object["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)["hostNetwrok"] = true
		}
		out, err := s.kubectl(t, wrong, "apply", "--server-side", "--validate=strict", "--dry-run=server", "-f-")
		if err == nil || !strings.Contains(out, "hostNetwrok") {
			t.Errorf("kubectl apply: %v\n%s", err, out)
		}
	})
}
