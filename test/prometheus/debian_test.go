// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/xdp-operator/xdp-operator/test/env/controlplane"
)

// programsVariable is the environment variable that passes the directory of prometheus and promtool into the sandbox.
const programsVariable = "XDP_OPERATOR_PROMETHEUS"

// getPrograms sets the variable. The programs are taken from the PATH, or from Debian's package, which is downloaded once and
// unpacked into the cache, but not installed.
func getPrograms(ctx context.Context, progress io.Writer) error {
	if path, err := exec.LookPath("promtool"); err == nil {
		if both, err := exec.LookPath("prometheus"); err == nil && filepath.Dir(both) == filepath.Dir(path) {
			return os.Setenv(programsVariable, filepath.Dir(path))
		}
	}
	cache, err := controlplane.CacheDir()
	if err != nil {
		return err
	}
	folder := filepath.Join(cache, "prometheus")
	if _, err := os.Stat(folder); err != nil {
		if err := fetch(ctx, cache, folder, progress); err != nil {
			return fmt.Errorf("get Prometheus (put prometheus and promtool on the PATH where there is no Debian): %w", err)
		}
	}
	return os.Setenv(programsVariable, filepath.Join(folder, "usr/bin"))
}

func fetch(ctx context.Context, cache, folder string, progress io.Writer) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(cache, "prometheus-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	fmt.Fprintln(progress, "downloading Debian's package prometheus, once")
	download := exec.CommandContext(ctx, "apt-get", "download", "-o", "APT::Sandbox::User=root", "prometheus")
	download.Dir = scratch
	if out, err := download.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get download (an apt-get update may be due): %w: %s", err, out)
	}
	packages, err := filepath.Glob(filepath.Join(scratch, "*.deb"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("apt-get left the packages %q", packages)
	}
	tree := filepath.Join(scratch, "tree")
	if out, err := exec.CommandContext(ctx, "dpkg-deb", "--extract", packages[0], tree).CombinedOutput(); err != nil {
		return fmt.Errorf("unpack it: %w: %s", err, out)
	}
	return os.Rename(tree, folder)
}

// program returns the path of prometheus or promtool.
func program(name string) string { return filepath.Join(os.Getenv(programsVariable), name) }
