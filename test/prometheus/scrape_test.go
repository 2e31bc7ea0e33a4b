// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
)

// expectClean checks the metrics of the controller and an agent with promtool.
func (w *testEnv) expectClean(t *testing.T) {
	t.Helper()
	for _, address := range []string{controllerMetrics, metricsOf(w.Nodes()[1])} {
		served, err := w.scrape(t, address)
		if err != nil {
			t.Fatal(err)
		}
		promtool(t, served, "check", "metrics")
	}
}

func (w *testEnv) scrape(t *testing.T, address string) ([]byte, error) {
	t.Helper()
	certificate, err := os.ReadFile(w.certificate())
	if err != nil {
		return nil, err
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(certificate)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted, ServerName: "metrics"}}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+w.token)
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return body, err
}
