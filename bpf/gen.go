// SPDX-License-Identifier: Apache-2.0

package bpf

// The committed objects are compiled by clang 14. Compiling them again gives the same bytes. bpfel is for amd64 and arm64,
// which are both little endian. -mcpu=v3 (32-bit jumps and arithmetic) requires Linux 5.1.
//
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags !nextlayout -target bpfel -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -Wall -Werror -mcpu=v3" counter counter.bpf.c
//
// The same program with another layout, for the build tag nextlayout.
//
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags nextlayout -target bpfel -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -Wall -Werror -mcpu=v3 -DNEXT_LAYOUT" -output-stem next counter counter.bpf.c
//
// The dispatcher, with which several programs share a hook.
//
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -Wall -Werror -mcpu=v3" dispatcher dispatcher.bpf.c
