// Package metrics says how controller and agent serve their metrics: over TLS, to those whom the API server knows and
// allows to get the path.
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

// Options are the flags. The zero value serves nothing after Server has been asked.
type Options struct {
	Address string
	Secure  bool
	CertDir string
}

// AddFlags adds the flags with their defaults.
func (o *Options) AddFlags(flags *flag.FlagSet) {
	flags.StringVar(&o.Address, "metrics-bind-address", "0", "The `address` that serves metrics, for example :8443. 0 serves none.")
	flags.BoolVar(&o.Secure, "metrics-secure", true, "Serve metrics over TLS, to who shows a token that may get their path. false: in clear, to whoever asks.")
	flags.StringVar(&o.CertDir, "metrics-cert-dir", "", "The `directory` of tls.crt and tls.key, which are read again when they change. Default: a certificate that nobody has signed.")
}

// Filter lets through who may read the metrics: metricsserver.Options.FilterProvider.
type Filter = func(*rest.Config, *http.Client) (metricsserver.Filter, error)

// Server returns how the manager's metrics server shall serve, with the filter where it is secure. It is an error if
// there is a directory for the certificate but no valid one in it: the manager would take one that nobody has signed.
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
		c.NextProtos = []string{"http/1.1"} // one request per scrape: HTTP/2 only adds ways to keep the server busy
	}}
	if o.CertDir != "" {
		if _, err := tls.LoadX509KeyPair(filepath.Join(o.CertDir, "tls.crt"), filepath.Join(o.CertDir, "tls.key")); err != nil {
			return server, fmt.Errorf("read the certificate for metrics: %w", err)
		}
		server.CertDir = o.CertDir // the manager watches it
	}
	return server, nil
}
