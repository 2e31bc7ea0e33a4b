// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	wait "github.com/xdp-operator/xdp-operator/test/util/eventually"
)

const widgets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  scope: Cluster
  names: {kind: Widget, listKind: WidgetList, plural: widgets, singular: widget}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {size: {type: integer}}
            x-kubernetes-validations: [{rule: self.size < 10, message: too large}]
`

// run starts a control plane for the test and stops it at its end.
func run(t *testing.T, o Options) *ControlPlane {
	t.Helper()
	o.Log = t.Output()
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestControlPlane(t *testing.T) {
	dir := t.TempDir()
	crd := filepath.Join(t.TempDir(), "widgets.yaml")
	if err := os.WriteFile(crd, []byte(widgets), 0o600); err != nil {
		t.Fatal(err)
	}
	c := run(t, Options{Dir: dir, CRDs: []string{crd}})
	client := kubernetes.NewForConfigOrDie(c.Config())

	t.Run("client and server are of the stated version", func(t *testing.T) {
		out, err := c.Kubectl(t.Context(), "version", "-o", "json").Output()
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			ClientVersion, ServerVersion struct{ GitVersion string }
		}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatal(err)
		}
		want := got
		want.ClientVersion.GitVersion = "v" + KubernetesVersion
		want.ServerVersion.GitVersion = "v" + KubernetesVersion
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("versions (-want +got):\n%s", diff)
		}
	})

	t.Run("a new namespace gets a ServiceAccount, whose token is good and without rights", func(t *testing.T) {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "fresh"}}
		if _, err := client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		accounts := client.CoreV1().ServiceAccounts(ns.Name)
		eventually(t, func() error {
			_, err := accounts.Get(t.Context(), "default", metav1.GetOptions{})
			return err
		})
		token, err := accounts.CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		config := rest.AnonymousClientConfig(c.Config())
		config.BearerToken = token.Status.Token
		_, err = kubernetes.NewForConfigOrDie(config).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `"system:serviceaccount:fresh:default" cannot list`) {
			t.Errorf("list nodes by the token: got %v, want forbidden to the ServiceAccount", err)
		}
	})

	t.Run("a made-up user has the rights of its groups", func(t *testing.T) {
		for _, test := range []struct {
			groups    []string
			forbidden bool
		}{{nil, true}, {[]string{"system:masters"}, false}} {
			kubeconfig, err := c.Kubeconfig("jane", test.groups...)
			if err != nil {
				t.Fatal(err)
			}
			config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
			if err != nil {
				t.Fatal(err)
			}
			_, err = kubernetes.NewForConfigOrDie(config).CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
			if apierrors.IsForbidden(err) != test.forbidden {
				t.Errorf("list nodes with groups %v: got %v, want forbidden: %v", test.groups, err, test.forbidden)
			}
		}
	})

	t.Run("the CRD is served and its rule holds", func(t *testing.T) {
		cmd := c.Kubectl(t.Context(), "apply", "-f", "-")
		cmd.Stdin = strings.NewReader(`{"apiVersion":"example.org/v1","kind":"Widget","metadata":{"name":"w"},"spec":{"size":11}}`)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "too large") {
			t.Errorf("apply a widget that is too large: got %v, %q", err, out)
		}
	})

	t.Run("the API server comes back with its objects, address and users", func(t *testing.T) {
		begin := time.Now()
		if err := c.StopAPIServer(); err != nil {
			t.Fatal(err)
		}
		t.Logf("stopped in %v", time.Since(begin))
		if _, err := client.CoreV1().Namespaces().Get(t.Context(), "fresh", metav1.GetOptions{}); err == nil {
			t.Error("the API server answers although it is stopped")
		}
		begin = time.Now()
		if err := c.StartAPIServer(); err != nil {
			t.Fatal(err)
		}
		t.Logf("started in %v", time.Since(begin))
		if _, err := client.CoreV1().Namespaces().Get(t.Context(), "fresh", metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	})

	t.Run("a killed etcd comes back with its objects", func(t *testing.T) {
		if err := c.KillEtcd(); err != nil {
			t.Fatal(err)
		}
		if err := c.StartEtcd(); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			_, err := client.CoreV1().Namespaces().Get(t.Context(), "fresh", metav1.GetOptions{})
			return err
		})
	})

	t.Run("a paused API server answers nothing until it is resumed", func(t *testing.T) {
		if err := c.PauseAPIServer(); err != nil {
			t.Fatal(err)
		}
		hurried, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := client.CoreV1().Namespaces().Get(hurried, "fresh", metav1.GetOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want no answer", err)
		}
		if err := c.ResumeAPIServer(); err != nil {
			t.Fatal(err)
		}
		if _, err := client.CoreV1().Namespaces().Get(t.Context(), "fresh", metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
	})

	t.Run("stopping leaves no process and nothing but logs", func(t *testing.T) {
		begin := time.Now()
		if err := c.Stop(); err != nil {
			t.Fatal(err)
		}
		t.Logf("stopped in %v", time.Since(begin))
		// Everything that the control plane runs has the directory in its arguments.
		cmdlines, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, cmdline := range cmdlines {
			if args, err := os.ReadFile(cmdline); err == nil && bytes.Contains(args, []byte(dir)) {
				t.Errorf("still running: %s %q", cmdline, args)
			}
		}
		left, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{filepath.Join(dir, "logs")}, left); diff != "" {
			t.Errorf("left in the directory (-want +got):\n%s", diff)
		}
	})
}

func TestStartTellsWhatIsWrong(t *testing.T) {
	assets, err := Assets(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	absent := filepath.Join(t.TempDir(), "absent.yaml")
	for name, test := range map[string]struct {
		o    Options
		want string
	}{
		"not an address":        {Options{Address: "here"}, `listen on "here": not an IP address`},
		"not our address":       {Options{Address: "192.0.2.1"}, "find a port for a server: listen tcp 192.0.2.1"},
		"no CRD under the path": {Options{CRDs: []string{absent}}, absent + ": no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			test.o.Assets = assets
			_, err := Start(t.Context(), test.o)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// eventually calls check until it returns nil.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	wait.Succeed(t, 20*time.Second, check)
}
