// SPDX-License-Identifier: Apache-2.0

// Package prometheus tests the metrics, the alerts and the dashboard with a real Prometheus. It scrapes real agents and a
// real controller over TLS with an authorized token, while frames arrive and faults are injected.
package prometheus

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
)

var box *sandbox.Sandbox

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	var err error
	box, err = sandbox.Enter(sandbox.Options{Outside: func() error {
		return errors.Join(getPrograms(context.Background(), os.Stderr), netnscluster.Prepare(context.Background(), root, false, os.Stderr))
	}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// testEnv is a cluster of three nodes that serve metrics, with the certificate and the token to read them.
type testEnv struct {
	*netnscluster.Cluster
	dir        string
	controller *netnscluster.Process
	token      string
}

const controllerMetrics = "127.0.0.1:8443"

func newEnv(t *testing.T) *testEnv {
	t.Helper()
	w := &testEnv{dir: t.TempDir()}
	certify(t, w.dir)
	c, err := netnscluster.Start(t.Context(), box, netnscluster.Options{Root: root, Dir: w.dir})
	if err != nil {
		t.Fatal(err)
	}
	w.Cluster = c
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	w.controller, err = c.StartController(context.Background(), "controller", "--status-interval=200ms",
		"--metrics-bind-address="+controllerMetrics, "--metrics-cert-dir="+w.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"node-a", "node-b", "node-c"} {
		n, err := c.AddNode(t.Context(), name, map[string]string{"name": name})
		if err != nil {
			t.Fatal(err)
		}
		w.startAgent(t, n)
	}
	w.token = w.reader(t)
	return w
}

func (w *testEnv) certificate() string { return w.dir + "/tls.crt" }

func metricsOf(n *netnscluster.Node) string { return n.Address.String() + ":9871" }

func (w *testEnv) startAgent(t *testing.T, n *netnscluster.Node) {
	t.Helper()
	if err := n.StartAgent(context.Background(), "--metrics-bind-address="+metricsOf(n), "--metrics-cert-dir="+w.dir); err != nil {
		t.Fatal(err)
	}
}

// targets returns the controller and the agents, and one of these again without a token.
func (w *testEnv) targets() []target {
	list := []target{{job: "xdp-operator-controller-metrics", address: controllerMetrics, token: w.token}}
	for _, n := range w.Nodes() {
		list = append(list, target{
			job: netnscluster.Namespace + "/xdp-operator-agent", address: metricsOf(n), token: w.token, labels: map[string]string{"node": n.Name},
		})
	}
	return append(list, target{job: "nobody", address: metricsOf(w.Nodes()[0])})
}

// counter creates an XDPCounter with a report interval of one second.
func (w *testEnv) counter(t *testing.T, name string, interfaces *v1alpha1.InterfaceSelector, nodes map[string]string) {
	t.Helper()
	x := &v1alpha1.XDPCounter{}
	x.Name, x.Spec.Interfaces = name, interfaces
	x.Spec.ReportInterval.Duration = time.Second
	if nodes != nil {
		x.Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: nodes}
	}
	if err := w.Client.Create(t.Context(), x); err != nil {
		t.Fatal(err)
	}
}

// reader creates a service account with permission to read metrics, and returns a token of it.
func (w *testEnv) reader(t *testing.T) string {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "prometheus", Namespace: netnscluster.Namespace}}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "prometheus"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "xdp-operator-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: account.Name, Namespace: account.Namespace}},
	}
	request := &authenticationv1.TokenRequest{}
	err := errors.Join(w.Client.Create(t.Context(), account), w.Client.Create(t.Context(), binding),
		w.Client.SubResource("token").Create(t.Context(), account, request))
	if err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

// certify writes a self-signed certificate and its key.
func certify(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "metrics"}, DNSNames: []string{"metrics"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), dir, "tls.crt")
	write(t, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), dir, "tls.key")
}
