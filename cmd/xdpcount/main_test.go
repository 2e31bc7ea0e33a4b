// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binary is the path of xdpcount. If XDP_OPERATOR_XDPCOUNT is not set, it is built.
var binary = os.Getenv("XDP_OPERATOR_XDPCOUNT")

func TestMain(m *testing.M) {
	if list := os.Getenv(cpuListVariable); list != "" {
		fmt.Fprintln(os.Stderr, execWithCPUList(list))
		os.Exit(1)
	}
	if os.Getenv(withoutTypes) != "" {
		fmt.Fprintln(os.Stderr, execWith(os.DevNull, "/sys/kernel/btf/vmlinux"))
		os.Exit(1)
	}
	flag.Parse()
	if binary != "" {
		os.Exit(m.Run())
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "xdpcount-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "xdpcount")
		build := exec.Command("go", "build", "-o", binary, ".")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build xdpcount:", err)
			return 1
		}
		if err := os.Chmod(dir, 0o755); err != nil { // a test runs it as an unprivileged user
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}
