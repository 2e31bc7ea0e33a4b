// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// loaderFiles are xdp-loader and what it needs: the other party that shares a hook. They are not linked statically, and
// a guest has no libraries.
var loaderFiles = []string{
	"/usr/sbin/xdp-loader",
	"/usr/lib/x86_64-linux-gnu/bpf/xdp-dispatcher.o",
	"/lib/x86_64-linux-gnu/libbpf.so.1",
	"/lib/x86_64-linux-gnu/libelf.so.1",
	"/lib/x86_64-linux-gnu/libz.so.1",
	"/lib/x86_64-linux-gnu/libc.so.6",
	"/lib64/ld-linux-x86-64.so.2",
}

// loader returns the folder with loaderFiles, from Debian's packages, and with an earlier run those that it got then.
func (s shelf) loader(ctx context.Context) (string, error) {
	folder := filepath.Join(s.folder, "xdp-loader")
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		return folder, err
	}
	if err := os.MkdirAll(s.folder, 0o755); err != nil {
		return "", err
	}
	scratch, err := os.MkdirTemp(s.folder, "fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	fmt.Fprintln(s.progress, "downloading xdp-tools, once")
	a, err := newApt(ctx, scratch, []suite{{"Debian", "bookworm"}})
	if err != nil {
		return "", err
	}
	tree, made := filepath.Join(scratch, "tree"), filepath.Join(scratch, "made")
	if err := a.extract(ctx, tree, []string{"download", "xdp-tools", "libxdp1", "libbpf1", "libelf1", "zlib1g", "libc6"}); err != nil {
		return "", err
	}
	if err := os.Mkdir(made, 0o755); err != nil {
		return "", err
	}
	for _, name := range loaderFiles {
		contents, err := os.ReadFile(filepath.Join(tree, name))
		if errors.Is(err, os.ErrNotExist) { // packages have moved from /lib to /usr/lib one by one
			contents, err = os.ReadFile(filepath.Join(tree, "usr", name))
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(made, filepath.Base(name)), contents, 0o755)
		}
		if err != nil {
			return "", fmt.Errorf("xdp-loader: %w", err)
		}
	}
	return folder, os.Rename(made, folder)
}
