// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/xdp-operator/xdp-operator/test/env/controlplane"
)

// asGKE makes the API server refuse pods of the system's priority classes in a namespace without a quota that selects them.
const asGKE = `
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ResourceQuota
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: ResourceQuotaConfiguration
    limitedResources:
    - resource: pods
      matchScopes:
      - scopeName: PriorityClass
        operator: In
        values: [system-node-critical, system-cluster-critical]
`

// server is the control plane of all tests of this package, which the first of them starts.
type server struct {
	*controlplane.ControlPlane
	tools string // the folder of helm
}

var running *server

var start = sync.OnceValues(func() (*server, error) {
	ctx := context.Background()
	tools, err := controlplane.Tools(ctx, filepath.Join(root, "test/env/kubeletcluster/helm"), os.Stderr)
	if err != nil {
		return nil, err
	}
	plane, err := controlplane.Start(ctx, controlplane.Options{CRDs: []string{root + "/config/crd/bases"}, Admission: asGKE, Log: os.Stderr})
	if err != nil {
		return nil, err
	}
	running = &server{ControlPlane: plane, tools: tools}
	return running, nil
})

func TestMain(m *testing.M) {
	status := m.Run()
	if running != nil {
		if err := running.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
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

// kubectl runs kubectl with the objects as its input.
func (s *server) kubectl(t *testing.T, all objects, args ...string) (string, error) {
	t.Helper()
	kubectl := s.Kubectl(t.Context(), args...)
	kubectl.Stdin = strings.NewReader(all.yaml(t))
	out, err := kubectl.CombinedOutput()
	return string(out), err
}

// helm runs helm without the user's settings.
func (s *server) helm(t *testing.T, args ...string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(s.tools, "helm"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.AdminKubeconfig())
	for _, kind := range []string{"CACHE", "CONFIG", "DATA"} {
		cmd.Env = append(cmd.Env, "HELM_"+kind+"_HOME="+filepath.Join(s.Dir(), "helm", kind))
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("helm %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
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

// addOpenShiftKind adds the CRD of SecurityContextConstraints to the API server.
func (s *server) addOpenShiftKind(t *testing.T) {
	t.Helper()
	module, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/openshift/api").Output()
	if err != nil {
		t.Fatal(err)
	}
	const folder, name = "payload-manifests/crds", "0000_03_config-operator_01_securitycontextconstraints.crd.yaml"
	for _, args := range [][]string{
		{"apply", "--server-side", "-f", filepath.Join(strings.TrimSpace(string(module)), folder, name)},
		{"wait", "--for=condition=Established", "crd/securitycontextconstraints.security.openshift.io"},
	} {
		if out, err := s.kubectl(t, nil, args...); err != nil {
			t.Fatalf("kubectl %s: %v\n%s", args[0], err, out)
		}
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
agent: {env: [{name: A, value: b}], podLabels: {a: b}, podAnnotations: {a: b}, capabilities: {sysResource: true, sysAdmin: true}, appArmorProfile: {type: RuntimeDefault}, seLinuxOptions: {type: spc_t}}
metrics: {certSecret: tls}
networkPolicy: {enabled: true, metricsFrom: [{podSelector: {}}]}
`)
	for name, all := range rendered {
		t.Run(name, func(t *testing.T) {
			s.apply(t, all.accounts()) // a pod is only accepted if its account exists
			s.apply(t, all, "--dry-run=server")
		})
	}
	t.Run("helm on OpenShift", func(t *testing.T) {
		all, _ := helm(t, namespace, "openshift: {securityContextConstraints: true}")
		s.addOpenShiftKind(t)
		s.apply(t, all, "--dry-run=server")
	})
	t.Run("samples", func(t *testing.T) { s.apply(t, kustomize(t, "samples"), "--dry-run=server") })
	t.Run("invalid object", func(t *testing.T) {
		wrong := kustomize(t, "agent")
		pod := wrong["DaemonSet xdp-operator-agent"].Object["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
		pod["hostNetwrok"] = true
		out, err := s.kubectl(t, wrong, "apply", "--server-side", "--validate=strict", "--dry-run=server", "-f-")
		if err == nil || !strings.Contains(out, "hostNetwrok") {
			t.Errorf("kubectl apply: %v\n%s", err, out)
		}
	})
}
