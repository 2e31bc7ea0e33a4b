// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/*
 * Calls up to ten programs on one XDP hook, one after another. It follows the protocol of libxdp
 * (https://github.com/xdp-project/xdp-tools/blob/main/lib/libxdp/protocol.org, version 2), so that every implementation
 * of the protocol can add and remove programs. The protocol defines the names xdp_dispatcher and prog0 to prog9, the
 * layout of the configuration, which is the only map, and the result of an unused place.
 *
 * Each place is a function that does nothing, and is replaced by a program of type EXT (Linux 5.10). The configuration
 * is constant when the kernel verifies the program, so places that are not enabled cost nothing.
 */
#include "headers/xdp.h"

#define PLACES 10
#define XDP_ABORTED 0
#define GO_ON 31 /* the result of an unused place */

static int (*bpf_xdp_adjust_tail)(struct xdp_md *ctx, int delta) = (void *)65;

static volatile const struct {
	__u8 magic;
	__u8 version;
	__u8 enabled; /* number of places, starting at prog0 */
	__u8 frags;
	__u32 go_on[PLACES]; /* bit mask of results of a program after which the next one is called */
	__u32 priorities[PLACES];
	__u32 flags[PLACES];
} conf = {};

/*
 * The result is volatile, so that the compiler does not optimize it away. The call does nothing, but allows programs
 * that change frames. Without it, newer kernels accept only programs that do not.
 */
#define PLACE(n)                                                                                                       \
	__noinline int prog##n(struct xdp_md *ctx)                                                                     \
	{                                                                                                              \
		volatile int result = GO_ON;                                                                           \
                                                                                                                       \
		if (!ctx)                                                                                              \
			return XDP_ABORTED;                                                                            \
		bpf_xdp_adjust_tail(ctx, 0);                                                                           \
		return result;                                                                                         \
	}

PLACE(0)
PLACE(1)
PLACE(2)
PLACE(3)
PLACE(4)
PLACE(5)
PLACE(6)
PLACE(7)
PLACE(8)
PLACE(9)

#define CALL(n)                                                                                                        \
	if (enabled <= n)                                                                                              \
		return XDP_PASS;                                                                                       \
	result = prog##n(ctx);                                                                                         \
	if (!(1U << result & conf.go_on[n]))                                                                           \
		return result;

SEC("xdp") int xdp_dispatcher(struct xdp_md *ctx)
{
	__u8 enabled = conf.enabled;
	int result;

	CALL(0)
	CALL(1)
	CALL(2)
	CALL(3)
	CALL(4)
	CALL(5)
	CALL(6)
	CALL(7)
	CALL(8)
	CALL(9)
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
