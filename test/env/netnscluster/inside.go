// SPDX-License-Identifier: Apache-2.0

package netnscluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
)

// Inside runs tests in a sandbox of their own, and ends the process with the status that run returns. prepare runs before,
// outside. run gets an empty directory, which ends with the sandbox; if anything fails, the logs that are in it are kept in
// bin/NAME/logs of the repository.
func Inside(root, name string, prepare func() error, run func(box *sandbox.Sandbox, dir string) (status int, err error)) {
	box, err := sandbox.Enter(sandbox.Options{Outside: prepare})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "xdp-operator-"+name+"-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status, err := run(box, dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = max(status, 1)
	}
	if status != 0 {
		to := filepath.Join(root, "bin", name, "logs")
		if err := errors.Join(os.RemoveAll(to), os.CopyFS(to, os.DirFS(filepath.Join(dir, "logs")))); err != nil {
			fmt.Fprintln(os.Stderr, "keep the logs:", err)
		} else {
			fmt.Fprintln(os.Stderr, "the logs are in", to)
		}
	}
	os.Exit(status)
}
