// SPDX-License-Identifier: Apache-2.0

// Package metrics configures the metrics servers of controller and agent. They use TLS, and authenticate and authorize each
// request through the API server.
package metrics

import (
	"crypto/tls"
	"flag"
	"fmt"
	"net/http"
	"path/filepath"

	"k8s.io/client-go/rest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// Options are the flags. With the zero value, Server returns options that disable the metrics server.
type Options struct {
	Address string
	Secure  bool
	CertDir string
}

// AddFlags adds the flags with their defaults.
func (o *Options) AddFlags(flags *flag.FlagSet) {
	flags.StringVar(&o.Address, "metrics-bind-address", "0", "The `address` that serves metrics, for example :8443. 0 disables them.")
	flags.BoolVar(&o.Secure, "metrics-secure", true, "Serve metrics over TLS, and require a token that is allowed to get /metrics. If false, metrics are served without TLS and to everyone.")
	flags.StringVar(&o.CertDir, "metrics-cert-dir", "", "The `directory` of tls.crt and tls.key, which are read again when they change. Default: a self-signed certificate.")
}

// Filter authorizes requests. It is the type of metricsserver.Options.FilterProvider.
type Filter = func(*rest.Config, *http.Client) (metricsserver.Filter, error)

// Server returns the options of the manager's metrics server, with the filter if it is secure. It returns an error if the
// directory has no valid certificate, because the manager would use a self-signed one instead.
func (o Options) Server(filter Filter) (metricsserver.Options, error) {
	server := metricsserver.Options{BindAddress: o.Address}
	if o.Address == "" || o.Address == "0" {
		server.BindAddress = "0"
		return server, nil
	}
	if !o.Secure {
		return server, nil
	}
	server.SecureServing = true
	server.FilterProvider = filter
	server.TLSOpts = []func(*tls.Config){func(c *tls.Config) {
		c.MinVersion = tls.VersionTLS12
		c.NextProtos = []string{"http/1.1"} // one request per scrape does not need HTTP/2, which has known denial-of-service attacks
	}}
	if o.CertDir != "" {
		if _, err := tls.LoadX509KeyPair(filepath.Join(o.CertDir, "tls.crt"), filepath.Join(o.CertDir, "tls.key")); err != nil {
			return server, fmt.Errorf("read the certificate for metrics: %w", err)
		}
		server.CertDir = o.CertDir // the manager watches the directory
	}
	return server, nil
}
