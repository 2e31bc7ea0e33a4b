package bpf

// clang 14 makes the committed object; regenerating it gives the same bytes. bpfel serves amd64 and arm64, both
// little endian. -mcpu=v3 (32-bit jumps and arithmetic) is understood since Linux 5.1.
//
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags !nextlayout -target bpfel -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -Wall -Werror -mcpu=v3" counter counter.bpf.c
//
// The same with another layout, for the tag nextlayout.
//
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags nextlayout -target bpfel -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -Wall -Werror -mcpu=v3 -DNEXT_LAYOUT" -output-stem next counter counter.bpf.c
//
// The dispatcher, which other programs can share the hook with.
//
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -Wall -Werror -mcpu=v3" dispatcher dispatcher.bpf.c
