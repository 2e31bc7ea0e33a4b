// SPDX-License-Identifier: Apache-2.0

// Package sharing shares the XDP hook of interfaces with xdp-loader of xdp-tools. It has tests only, which command kernels
// runs.
package sharing

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags linux -target bpfel -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -Wall -Werror -mcpu=v3" others others.bpf.c
