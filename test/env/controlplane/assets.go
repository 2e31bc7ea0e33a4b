// SPDX-License-Identifier: Apache-2.0

// Package controlplane runs a Kubernetes control plane on the machine that it is called on: etcd, kube-apiserver
// and kube-controller-manager, without containers and without a registry. It is for tests and for the demo.
package controlplane

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// KubernetesVersion is the release of kube-apiserver, kube-controller-manager and kubectl, without the "v".
// It is the version of k8s.io/kubernetes in kubernetes/go.mod (a test compares the two).
const KubernetesVersion = "1.37.2"

// module is the path of the module that this package is part of.
const module = "github.com/xdp-operator/xdp-operator"

// binaries lists what a directory of assets holds.
func binaries() []string {
	return []string{"etcd", "kube-apiserver", "kube-controller-manager", "kubectl"}
}

// Assets returns the absolute path of a directory that holds the executables etcd, kube-apiserver,
// kube-controller-manager and kubectl. Each comes from the first of these that has it:
//
//  1. the directory named by KUBEBUILDER_ASSETS,
//  2. the cache: $XDP_OPERATOR_CACHE, or xdp-operator in the user's cache directory, keyed by the versions,
//     the Go release and the sources of the module below,
//  3. the release site of Kubernetes, if it answers within seconds (it has no etcd),
//  4. the module kubernetes beside this file, built with the go command. This takes minutes, once. A
//     progress line goes to progress every ten seconds, or every second in place if progress is a terminal.
//
// kubelet and the other programs of nodes are built only if Programs is called with their names.
//
// If names are given, only those of the executables are needed. If more than one source is used, the directory holds links.
// Runs at the same time wait for each other. progress may be nil.
func Assets(ctx context.Context, progress io.Writer, names ...string) (string, error) {
	if len(names) == 0 {
		names = binaries()
	}
	given := os.Getenv("KUBEBUILDER_ASSETS")
	absent := missing(given, names)
	if len(absent) == 0 {
		return filepath.Abs(given)
	}
	source, cache, err := places(ctx)
	if err != nil {
		return "", err
	}
	if err := fill(ctx, cache, source, absent, &reporter{out: progress}); err != nil {
		return "", err
	}
	if len(absent) == len(names) {
		return cache, nil
	}
	return mix(given, cache, names)
}

// missing returns those names that are not executable files in dir, all of them if dir is empty.
func missing(dir string, names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		if dir == "" {
			return false
		}
		info, err := os.Stat(filepath.Join(dir, name))
		return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
	})
}

// places returns the folder of the module that is built, and the one below cacheRoot for what is made of it.
func places(ctx context.Context) (source, cache string, err error) {
	if source, err = sourceDir(ctx); err != nil {
		return "", "", err
	}
	root, err := cacheRoot()
	if err != nil {
		return "", "", err
	}
	key, err := cacheKey(source)
	return source, filepath.Join(root, key), err
}

// sourceDir returns the folder of the module kubernetes, which is beside this file in the clone.
func sourceDir(ctx context.Context) (string, error) {
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		return filepath.Join(filepath.Dir(file), "kubernetes"), nil
	}
	// Built with -trimpath: the file's name begins with the module's path.
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("find the source tree of %s: %w", module, err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "test", "env", "controlplane", "kubernetes"), nil
}

// cacheRoot returns the folder that holds one folder per cacheKey.
func cacheRoot() (string, error) {
	root := os.Getenv("XDP_OPERATOR_CACHE")
	if root == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the user's cache directory (XDP_OPERATOR_CACHE names another): %w", err)
		}
		root = filepath.Join(user, "xdp-operator")
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "controlplane"), nil
}

// cacheKey names what is built: versions, platform, Go release, and the sources of the module.
func cacheKey(source string) (string, error) {
	sum := sha256.New()
	tree := os.DirFS(source)
	err := fs.WalkDir(tree, ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(tree, file)
		fmt.Fprintf(sum, "%s %d\n%s", file, len(content), content)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the sources of the control plane (they are in a clone only): %w", err)
	}
	// Development toolchains have spaces in their version.
	release := strings.ReplaceAll(runtime.Version(), " ", "_")
	return fmt.Sprintf("v%s-%s-%s-%s-%s", KubernetesVersion, runtime.GOOS, runtime.GOARCH, release,
		hex.EncodeToString(sum.Sum(nil))[:12]), nil
}

// fill puts the named binaries into cache, unless they are there already.
func fill(ctx context.Context, cache, source string, names []string, report *reporter) error {
	if len(missing(cache, names)) == 0 {
		return nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return fmt.Errorf("make the cache of the control plane: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(cache, ".lock"), report)
	if err != nil {
		return err
	}
	defer unlock()
	// Whoever had the lock before us may have done the work.
	absent := missing(cache, names)
	kubernetes := slices.DeleteFunc(slices.Clone(absent), func(name string) bool { return name == "etcd" })
	if len(kubernetes) > 0 {
		if err := download(ctx, releases, cache, kubernetes, report); err != nil {
			report.line("no download of Kubernetes v%s, it is built instead: %v", KubernetesVersion, err)
		}
		absent = missing(cache, names)
	}
	for _, t := range buildTargets() {
		if !t.hasAny(absent) {
			continue
		}
		if err := t.build(ctx, source, cache, report); err != nil {
			return err
		}
	}
	if absent := missing(cache, names); len(absent) > 0 {
		return fmt.Errorf("fill %s: still without %s", cache, strings.Join(absent, ", "))
	}
	return nil
}

// mix returns a folder beside cache of links to the binaries: those that given has, the others from cache.
func mix(given, cache string, names []string) (string, error) {
	given, err := filepath.Abs(given)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(given + "\n" + cache))
	dir := filepath.Join(filepath.Dir(cache), "mixed-"+hex.EncodeToString(sum[:])[:12])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make a directory of links to the control plane: %w", err)
	}
	for _, name := range names {
		from := given
		if len(missing(given, []string{name})) > 0 {
			from = cache
		}
		if err := link(filepath.Join(from, name), filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// link makes name a symbolic link to target. It replaces in one step, since another run may be using the name.
func link(target, name string) error {
	temporary := fmt.Sprintf("%s.%d", name, os.Getpid())
	if err := os.Symlink(target, temporary); err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := os.Rename(temporary, name); err != nil {
		return errors.Join(fmt.Errorf("link %s: %w", name, err), os.Remove(temporary))
	}
	return nil
}

// lock takes the lock on the file path and returns what gives it back. The kernel gives it back if the process dies.
func lock(ctx context.Context, path string, report *reporter) (func(), error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the cache: %w", err)
	}
	for waited := false; ; waited = true {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
		}
		if !waited {
			report.line("waiting for another run that fills %s", filepath.Dir(path))
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for the lock %s: %w", path, ctx.Err()), file.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}
