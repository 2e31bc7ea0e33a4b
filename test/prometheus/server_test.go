// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	wait "github.com/xdp-operator/xdp-operator/test/util/eventually"
)

const serverAddress = "127.0.0.1:9090"

// server is a Prometheus that scrapes every second.
type server struct {
	promv1.API
	began time.Time
}

// target is a scrape job.
type target struct {
	job, address, token string
	labels              map[string]string
}

// configure writes the configuration of Prometheus, which verifies certificates with the file.
func configure(t *testing.T, dir, certificate string, rules []byte, targets []target) string {
	t.Helper()
	write(t, rules, dir, "rules.yaml")
	var out strings.Builder
	out.WriteString("global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\nrule_files: [rules.yaml]\nscrape_configs:\n")
	for i, j := range targets {
		name := j.job
		if i > 0 && targets[i-1].job == name {
			name += fmt.Sprint(i) // job names must be unique; they are relabelled below
		}
		fmt.Fprintf(&out, "- job_name: %s\n  scheme: https\n  tls_config: {ca_file: %s, server_name: metrics}\n", name, certificate)
		if j.token != "" {
			fmt.Fprintf(&out, "  authorization: {credentials: %s}\n", j.token)
		}
		fmt.Fprintf(&out, "  static_configs:\n  - targets: ['%s']\n    labels: {job: %s", j.address, j.job)
		for name, value := range j.labels {
			fmt.Fprintf(&out, ", %s: %s", name, value)
		}
		out.WriteString("}\n")
	}
	return write(t, []byte(out.String()), dir, "prometheus.yml")
}

// startServer runs Prometheus until the test ends.
func startServer(t *testing.T, dir, config string) *server {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, "prometheus.log"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program("prometheus"), "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "tsdb"),
		"--web.listen-address="+serverAddress, "--log.level=warn")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		_ = log.Close()
		if said, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("Prometheus said:\n%s", said)
		}
	})
	client, err := api.NewClient(api.Config{Address: "http://" + serverAddress})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{API: promv1.NewAPI(client), began: time.Now()}
	eventually(t, func() error {
		_, err := s.Buildinfo(t.Context())
		return err
	})
	return s
}

// ask returns the current result of a query.
func (s *server) ask(ctx context.Context, format string, args ...any) (model.Vector, error) {
	query := fmt.Sprintf(format, args...)
	value, warnings, err := s.Query(ctx, query, time.Now())
	if err != nil || len(warnings) > 0 {
		return nil, errors.Join(fmt.Errorf("%s: %v", query, warnings), err)
	}
	vector, ok := value.(model.Vector)
	if !ok {
		return nil, fmt.Errorf("%s gives a %s", query, value.Type())
	}
	return vector, nil
}

// expect waits until a query returns exactly this value.
func (s *server) expect(t *testing.T, want float64, format string, args ...any) {
	t.Helper()
	eventually(t, func() error {
		got, err := s.ask(t.Context(), format, args...)
		if err == nil && (len(got) != 1 || float64(got[0].Value) != want) {
			err = fmt.Errorf(format+" is %v, want %v", append(args, got, want)...)
		}
		return err
	})
}

// since returns the results of a query since the start, for every second.
func (s *server) since(t *testing.T, query string) model.Matrix {
	t.Helper()
	value, _, err := s.QueryRange(t.Context(), query, promv1.Range{Start: s.began, End: time.Now(), Step: time.Second})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	matrix, ok := value.(model.Matrix)
	if !ok {
		t.Fatalf("%s gives a %s", query, value.Type())
	}
	return matrix
}

// firing returns the labels of the firing alerts by name.
func (s *server) firing(ctx context.Context) (map[string][]model.LabelSet, error) {
	result, err := s.Alerts(ctx)
	firing := map[string][]model.LabelSet{}
	for _, a := range result.Alerts {
		if a.State == promv1.AlertStateFiring {
			name := string(a.Labels["alertname"])
			firing[name] = append(firing[name], a.Labels)
		}
	}
	return firing, err
}

// fires waits until the alert fires with at least these labels.
func (s *server) fires(t *testing.T, name string, want model.LabelSet) {
	t.Helper()
	eventually(t, func() error {
		firing, err := s.firing(t.Context())
		if err != nil {
			return err
		}
		for _, labels := range firing[name] {
			if equal(labels, want) {
				return nil
			}
		}
		return fmt.Errorf("%s does not fire with %v; what does: %v", name, want, firing)
	})
}

func equal(labels, want model.LabelSet) bool {
	for name, value := range want {
		if labels[name] != value {
			return false
		}
	}
	return true
}

// eventually calls check until it returns nil.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	wait.Succeed(t, time.Minute, check)
}
