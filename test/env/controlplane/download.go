// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// releases is where Kubernetes publishes its binaries, see https://kubernetes.io/releases/download/.
//
// setup-envtest would be the usual source of a test control plane, but its archives hold etcd, kube-apiserver
// and kubectl only. Without a kube-controller-manager all of Kubernetes would have to be built all the same.
const releases = "https://dl.k8s.io/release"

// download puts the named binaries of Kubernetes into dir. It gives up within seconds where there is no way to
// base, and after three minutes in any case: building is then no slower. What arrives is checked against the
// SHA-256 sum that is published beside it.
func download(ctx context.Context, base, dir string, names []string, report *reporter) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	begin := time.Now()
	for _, name := range names {
		url := fmt.Sprintf("%s/v%s/bin/%s/%s/%s", base, KubernetesVersion, runtime.GOOS, runtime.GOARCH, name)
		if err := downloadOne(ctx, url, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	report.line("downloaded %s v%s in %.0f s", strings.Join(names, ", "), KubernetesVersion, time.Since(begin).Seconds())
	return nil
}

// downloadOne puts what url has into the file path, which appears complete or not at all.
func downloadOne(ctx context.Context, url, path string) error {
	// The checksum is short, so a download that does not work fails early.
	sum, err := fetchSum(ctx, url+".sha256")
	if err != nil {
		return err
	}
	body, err := get(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	temporary := fmt.Sprintf("%s.%d", path, os.Getpid())
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return fmt.Errorf("download %s: %w", url, err)
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(file, hash), body)
	err = errors.Join(err, file.Close())
	if got := hex.EncodeToString(hash.Sum(nil)); err == nil && got != sum {
		err = fmt.Errorf("SHA-256 is %s, published is %q", got, sum)
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("download %s: %w", url, err), os.Remove(temporary))
	}
	return nil
}

func fetchSum(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	body, err := get(ctx, url)
	if err != nil {
		return "", err
	}
	defer func() { _ = body.Close() }()
	sum, err := io.ReadAll(io.LimitReader(body, 1024))
	if err != nil {
		return "", fmt.Errorf("download %s: %w", url, err)
	}
	return strings.TrimSpace(string(sum)), nil
}

// get returns the body of url, which the caller closes.
func get(ctx context.Context, url string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err // names the URL itself
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("download %s: %s", url, response.Status), response.Body.Close())
	}
	return response.Body, nil
}
