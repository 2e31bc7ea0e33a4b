package manifests

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// TestAPIServerTakesEverything has a real API server validate all objects as strictly as it can: unknown fields,
// schemas, the rules in the CRDs.
func TestAPIServerTakesEverything(t *testing.T) {
	// The repository's own way to the binaries. It is asked by command, since it is in another module.
	get := exec.CommandContext(t.Context(), "go", "run", "-C", root, "./hack/controlplane/get")
	get.Stderr = t.Output()
	assets, err := get.Output()
	if err != nil {
		t.Fatalf("get the API server: %v", err)
	}
	server := &envtest.Environment{
		BinaryAssetsDirectory: strings.TrimSpace(string(assets)),
		CRDDirectoryPaths:     []string{root + "/config/crd/bases"},
		ErrorIfCRDPathMissing: true,
	}
	if _, err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Errorf("stop the API server: %v", err)
		}
	})
	kubeconfig := t.TempDir() + "/kubeconfig"
	if err := os.WriteFile(kubeconfig, server.KubeConfig, 0o600); err != nil {
		t.Fatal(err)
	}
	apply := func(t *testing.T, all objects, flags ...string) {
		t.Helper()
		args := append([]string{"--kubeconfig=" + kubeconfig, "apply", "--server-side", "--validate=strict", "-f-"}, flags...)
		kubectl := exec.CommandContext(t.Context(), server.ControlPlane.KubectlPath, args...)
		kubectl.Stdin = strings.NewReader(all.yaml(t))
		out, err := kubectl.CombinedOutput()
		if err != nil || strings.Contains(string(out), "Warning") {
			t.Errorf("kubectl apply: %v\n%s", err, out)
		}
		if got := strings.Count(string(out), " serverside-applied"); got != len(all) {
			t.Errorf("%d of %d objects applied:\n%s", got, len(all), out)
		}
	}

	rendered := both(t)
	namespaceOnly := "Namespace " + namespace
	apply(t, objects{namespaceOnly: rendered["kustomize"][namespaceOnly]})
	for name, all := range rendered {
		t.Run(name, func(t *testing.T) { apply(t, all, "--dry-run=server") })
	}
	t.Run("samples", func(t *testing.T) { apply(t, kustomize(t, "samples"), "--dry-run=server") })
	t.Run("a mistake is found", func(t *testing.T) {
		wrong := kustomize(t, "agent")
		for _, object := range wrong {
			object.Object["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)["hostNetwrok"] = true
		}
		kubectl := exec.CommandContext(t.Context(), server.ControlPlane.KubectlPath,
			"--kubeconfig="+kubeconfig, "apply", "--server-side", "--validate=strict", "--dry-run=server", "-f-")
		kubectl.Stdin = strings.NewReader(wrong.yaml(t))
		if out, err := kubectl.CombinedOutput(); err == nil || !strings.Contains(string(out), "hostNetwrok") {
			t.Errorf("kubectl apply: %v\n%s", err, out)
		}
	})
}
