// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Kubelets says how a control plane serves real nodes.
type Kubelets struct {
	// ServiceCIDR has the addresses of Services, "10.96.0.0/16". ServiceAddress is the first of them: that of the
	// API server in pods.
	ServiceCIDR, ServiceAddress string
	// Scheduler is the executable of kube-scheduler.
	Scheduler string
}

// serve configures the API server for kubelets, which it is a client of, and for pods, which know it by other names.
// Its certificate and the one it shows to kubelets are signed by what CA returns then.
func (k Kubelets) serve(c *ControlPlane) error {
	server := c.plane.APIServer
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	addresses := []net.IP{net.ParseIP(server.Address), net.ParseIP(k.ServiceAddress), net.ParseIP(loopback)}
	serving := &x509.Certificate{
		Subject: pkix.Name{CommonName: "kube-apiserver"}, DNSNames: names, IPAddresses: addresses,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	client := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	// envtest takes certificates that are there under its own names, and then those of ServiceAccounts must be too.
	err = errors.Join(ca.issue(serving, server.CertDir, "apiserver"), ca.issue(client, server.CertDir, "kubelet-client"),
		ca.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "service-accounts"}}, server.CertDir, "sa-signer"))
	if err != nil {
		return fmt.Errorf("make the certificates of the API server: %w", err)
	}
	server.CA = ca.pem()
	server.Configure().
		Set("service-cluster-ip-range", k.ServiceCIDR).
		Set("kubelet-client-certificate", filepath.Join(server.CertDir, "kubelet-client.crt")).
		Set("kubelet-client-key", filepath.Join(server.CertDir, "kubelet-client.key")).
		Set("kubelet-preferred-address-types", "InternalIP").
		// There is no kube-proxy beside it: it asks the pods behind a Service directly.
		Set("enable-aggregator-routing", "true")
	return nil
}

// startScheduler runs kube-scheduler.
func (k Kubelets) startScheduler(c *ControlPlane) error {
	kubeconfig, err := c.Kubeconfig("system:kube-scheduler")
	if err != nil {
		return err
	}
	path := filepath.Join(c.plane.APIServer.CertDir, "kube-scheduler.kubeconfig")
	if err := os.WriteFile(path, kubeconfig, 0o600); err != nil {
		return fmt.Errorf("write the credentials of kube-scheduler: %w", err)
	}
	log, err := c.log("kube-scheduler")
	if err != nil {
		return err
	}
	c.scheduler, err = start(log, k.Scheduler, "--kubeconfig="+path, "--leader-elect=false", "--secure-port=0",
		"--kube-api-qps=500", "--kube-api-burst=1000")
	return err
}

// authority signs certificates of a few days.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	limit(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	return &authority{certificate, key}, err
}

// limit says from when to when a certificate is good. Clocks may be a little apart.
func limit(template *x509.Certificate) {
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(30 * 24 * time.Hour)
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
}

// issue makes a key and a certificate for it from the template, as NAME.key and NAME.crt in dir.
func (a *authority) issue(template *x509.Certificate, dir, name string) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return err
	}
	template.SerialNumber, template.KeyUsage = serial, x509.KeyUsageDigitalSignature
	limit(template)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("sign the certificate %s: %w", name, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644),
		os.WriteFile(filepath.Join(dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
}
