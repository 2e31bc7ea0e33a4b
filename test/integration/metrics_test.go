// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

// The addresses of the metrics of controller and agent in these tests.
const (
	controllerMetrics = "127.0.0.1:8443"
	agentMetrics      = "127.0.0.1:9871"
)

func TestMetricsAuthorization(t *testing.T) {
	reader, stranger := metricsReader(t), account(t, "stranger")

	// Controller and agent use different filters. Their response to an unknown token differs.
	check := func(t *testing.T, forged int, scrape func(path, authorization string) (*answer, error)) {
		t.Helper()
		for _, want := range []struct {
			path, authorization string
			status              int
		}{
			{"/metrics", "", http.StatusUnauthorized},
			{"/metrics", "Bearer", http.StatusUnauthorized},
			{"/metrics", "Bearer " + reader[:len(reader)-8] + "AAAAAAAA", forged},
			{"/metrics", "Basic " + reader, http.StatusUnauthorized},
			{"/metrics", "Bearer " + stranger, http.StatusForbidden},
			{"/metrics", "Bearer " + reader, http.StatusOK},
			{"/metrics", "bearer " + reader, http.StatusOK}, // cached
			{"/metrics", "Bearer " + stranger, http.StatusForbidden},
			{"/debug/pprof/", "Bearer " + reader, http.StatusNotFound},
		} {
			eventually(t, func() error {
				got, err := scrape(want.path, want.authorization)
				if err != nil {
					return err
				}
				if got.status != want.status || (got.status == http.StatusOK) != strings.Contains(got.body, "# TYPE ") {
					return fmt.Errorf("%s with %.12q: status %d, %.200s", want.path, want.authorization, got.status, got.body)
				}
				return nil
			})
		}
	}
	t.Run("controller", func(t *testing.T) {
		p, err := startController("metrics", "--metrics-bind-address="+controllerMetrics)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = p.Kill() }()
		check(t, http.StatusInternalServerError, func(path, authorization string) (*answer, error) { // the status that controller-runtime returns
			return ask(t.Context(), controllerMetrics, path, authorization)
		})
		if answer, err := unsecured(t.Context(), controllerMetrics); err == nil && answer.status == http.StatusOK {
			t.Error("metrics are served without TLS")
		}
	})
	t.Run("agent", func(t *testing.T) {
		n := c.Nodes()[0]
		restart(t, n, "--metrics-bind-address=["+strings.TrimSuffix(agentMetrics, ":9871")+"]:9871")
		check(t, http.StatusUnauthorized, func(path, authorization string) (a *answer, err error) {
			err = errors.Join(n.Do(func() (err error) { a, err = ask(t.Context(), agentMetrics, path, authorization); return err }))
			return a, err
		})
	})
}

func TestCertificateReload(t *testing.T) {
	secret := &secretVolume{dir: t.TempDir()}
	secret.write(t, 1)
	p, err := startController("rotation", "--metrics-bind-address="+controllerMetrics, "--metrics-cert-dir="+secret.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Kill() }()
	n := c.Nodes()[0]
	restart(t, n, "--metrics-bind-address="+agentMetrics, "--metrics-cert-dir="+secret.dir)
	for serial := int64(1); serial <= 3; serial++ {
		if serial > 1 {
			secret.write(t, serial)
		}
		serves := func(address string) error {
			got, err := ask(t.Context(), address, "/metrics", "")
			if err == nil && got.serial != serial {
				err = fmt.Errorf("%s serves certificate %d, want %d", address, got.serial, serial)
			}
			return err
		}
		eventually(t, func() error { return serves(controllerMetrics) })
		eventually(t, func() error { return n.Do(func() error { return serves(agentMetrics) }) })
	}
	if err := errors.Join(p.Ended(), n.Agent.Ended()); err != nil {
		t.Error(err)
	}
}

func TestMissingCertificate(t *testing.T) {
	p, err := startController("no-certificate", "--metrics-bind-address="+controllerMetrics, "--metrics-cert-dir="+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Kill() }()
	eventually(t, func() error {
		if err := p.Ended(); err == nil || !strings.Contains(err.Error(), "read the certificate for metrics") {
			return fmt.Errorf("want it to exit because of the certificate, got: %w", err)
		}
		return nil
	})
}

// restart restarts the node's agent with additional arguments, and without them at the end of the test.
func restart(t *testing.T, n *netnscluster.Node, args ...string) {
	t.Helper()
	again := func(args ...string) {
		if err := n.StopAgent(); err != nil {
			t.Error(err)
		}
		if err := n.StartAgent(context.Background(), append([]string{"--health-probe-bind-address=" + agentProbes}, args...)...); err != nil {
			t.Error(err)
		}
	}
	again(args...)
	t.Cleanup(func() { again() })
}

func create(t *testing.T, object client.Object) {
	t.Helper()
	if err := c.Client.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Client.Delete(context.Background(), object); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
}

// metricsReader creates a service account with permission to read metrics, and returns a token of it.
func metricsReader(t *testing.T) string {
	t.Helper()
	token := account(t, "reader")
	create(t, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "test-metrics-reader"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "xdp-operator-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Name: "reader", Namespace: netnscluster.Namespace}},
	})
	return token
}

// account creates a service account and returns a token of it.
func account(t *testing.T, name string) string {
	t.Helper()
	a := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: netnscluster.Namespace}}
	create(t, a)
	request := &authenticationv1.TokenRequest{}
	if err := c.Client.SubResource("token").Create(t.Context(), a, request); err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

type answer struct {
	status int
	body   string
	serial int64 // of the server's certificate
}

// ask sends a request over TLS from the network namespace of the calling thread.
func ask(ctx context.Context, address, path, authorization string) (*answer, error) {
	connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = connection.Close() }()
	secured := tls.Client(connection, &tls.Config{InsecureSkipVerify: true}) // the test checks the certificate itself
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	got, err := talk(ctx, secured, address, path, authorization)
	if err == nil {
		got.serial = secured.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	return got, err
}

func unsecured(ctx context.Context, address string) (*answer, error) {
	connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = connection.Close() }()
	return talk(ctx, connection, address, "/metrics", "")
}

func talk(ctx context.Context, connection net.Conn, address, path, authorization string) (*answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return nil, err
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	if err := request.Write(connection); err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return &answer{status: response.StatusCode, body: string(body)}, err
}

// secretVolume is a directory like the volume that the kubelet creates for a Secret. The files are links through ..data,
// which is replaced atomically, and the old files are deleted.
type secretVolume struct {
	dir, current string
}

// write replaces the certificate by one with the serial number.
func (s *secretVolume) write(t *testing.T, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "metrics"}, DNSNames: []string{"metrics"},
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
	before := s.current
	s.current = fmt.Sprintf("..version_%d", serial)
	folder, data := filepath.Join(s.dir, s.current), filepath.Join(s.dir, "..data")
	errs := []error{
		os.Mkdir(folder, 0o700),
		os.WriteFile(filepath.Join(folder, "tls.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o600),
		os.WriteFile(filepath.Join(folder, "tls.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600),
		os.Symlink(s.current, data+"_tmp"),
		os.Rename(data+"_tmp", data),
	}
	if before == "" {
		errs = append(errs, os.Symlink("..data/tls.crt", filepath.Join(s.dir, "tls.crt")), os.Symlink("..data/tls.key", filepath.Join(s.dir, "tls.key")))
	} else {
		errs = append(errs, os.RemoveAll(filepath.Join(s.dir, before)))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
