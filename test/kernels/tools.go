// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// tools are the programs of Debian that tests use in a guest, and what these need: xdp-loader, the other party that shares a
// hook, and the compiler of AppArmor's profiles. They are not linked statically, and a guest has no libraries.
var tools = []string{
	"/usr/sbin/xdp-loader",
	"/usr/lib/x86_64-linux-gnu/bpf/xdp-dispatcher.o",
	"/lib/x86_64-linux-gnu/libbpf.so.1",
	"/lib/x86_64-linux-gnu/libelf.so.1",
	"/lib/x86_64-linux-gnu/libz.so.1",
	"/sbin/apparmor_parser",
	"/lib/x86_64-linux-gnu/libstdc++.so.6",
	"/lib/x86_64-linux-gnu/libgcc_s.so.1",
	"/lib/x86_64-linux-gnu/libm.so.6",
	"/lib/x86_64-linux-gnu/libc.so.6",
	"/lib64/ld-linux-x86-64.so.2",
}

// toolPackages are Debian's packages with tools.
var toolPackages = []string{"xdp-tools", "libxdp1", "libbpf1", "libelf1", "zlib1g", "apparmor", "libstdc++6", "libgcc-s1", "libc6"}

// tools returns the folder with tools, from Debian's packages, and with an earlier run those that it got then.
func (s shelf) tools(ctx context.Context) (string, error) {
	folder := filepath.Join(s.folder, "tools")
	if haveTools(folder) {
		return folder, nil
	}
	if err := os.MkdirAll(s.folder, 0o755); err != nil {
		return "", err
	}
	scratch, err := os.MkdirTemp(s.folder, "fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(scratch)
	fmt.Fprintln(s.progress, "downloading xdp-tools and apparmor, once")
	a, err := newApt(ctx, scratch, []suite{{"Debian", "bookworm"}})
	if err != nil {
		return "", err
	}
	tree, made := filepath.Join(scratch, "tree"), filepath.Join(scratch, "made")
	if err := a.extract(ctx, tree, append([]string{"download"}, toolPackages...)); err != nil {
		return "", err
	}
	if err := os.Mkdir(made, 0o755); err != nil {
		return "", err
	}
	for _, name := range tools {
		contents, err := os.ReadFile(filepath.Join(tree, name))
		if errors.Is(err, os.ErrNotExist) { // packages have moved from /lib to /usr/lib one by one
			contents, err = os.ReadFile(filepath.Join(tree, "usr", name))
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(made, filepath.Base(name)), contents, 0o755)
		}
		if err != nil {
			return "", fmt.Errorf("get the programs of the guests: %w", err)
		}
	}
	if err := os.RemoveAll(folder); err != nil {
		return "", err
	}
	return folder, os.Rename(made, folder)
}

// haveTools reports whether the folder has all tools: an earlier version of this list may have been shorter.
func haveTools(folder string) bool {
	for _, name := range tools {
		if _, err := os.Stat(filepath.Join(folder, filepath.Base(name))); err != nil {
			return false
		}
	}
	return true
}
