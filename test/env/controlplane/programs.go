// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Programs returns the absolute path of a directory that holds the programs of Kubernetes that are named, and maybe
// others. There are kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy and kubectl. They come
// from the sources that Assets lists, except KUBEBUILDER_ASSETS.
func Programs(ctx context.Context, progress io.Writer, names ...string) (string, error) {
	source, cache, err := places(ctx)
	if err != nil {
		return "", err
	}
	return cache, fill(ctx, cache, source, names, &reporter{out: progress})
}

// Tools returns the absolute path of a directory that holds the commands which go.mod in the folder module names as
// tools. They are built with the go command once, and then come from the cache, keyed by go.mod, go.sum and the Go
// release. Runs at the same time wait for each other. progress is as for Assets.
func Tools(ctx context.Context, module string, progress io.Writer) (string, error) {
	root, err := cacheRoot()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, file := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(module, file))
		if err != nil {
			return "", fmt.Errorf("read the module of the tools: %w", err)
		}
		fmt.Fprintf(sum, "%s %d\n%s", file, len(content), content)
	}
	release := strings.ReplaceAll(runtime.Version(), " ", "_")
	name := filepath.Base(module)
	dir := filepath.Join(filepath.Dir(root), "tools", fmt.Sprintf("%s-%s-%s-%s-%s", name, runtime.GOOS, runtime.GOARCH,
		release, hex.EncodeToString(sum.Sum(nil))[:12]))
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("make the cache of tools: %w", err)
	}
	report := &reporter{out: progress}
	if exists(dir) {
		return dir, nil
	}
	unlock, err := lock(ctx, dir+".lock", report)
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(dir) { // the process that had the lock before has done the work
		return dir, nil
	}
	return dir, buildPackages(ctx, name, module, "tool", "-s -w", dir+"/", report)
}

func exists(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}

// CacheDir returns the directory of everything that is kept from one run to the next: $XDP_OPERATOR_CACHE, or
// xdp-operator in the user's cache directory. It need not exist.
func CacheDir() (string, error) {
	root, err := cacheRoot()
	return filepath.Dir(root), err
}
