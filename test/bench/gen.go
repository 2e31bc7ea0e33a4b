// SPDX-License-Identifier: Apache-2.0

package main

// Made as the product's program is (bpf/gen.go), so that they differ by their source only.
//
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags linux -target bpfel -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -Wall -Werror -mcpu=v3" baseline baseline.bpf.c
