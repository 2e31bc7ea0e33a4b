// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/*
 * What others have on the hook: xdp-loader loads it beside the counting program. Each counts the frames that it gets.
 */
#include "../../../bpf/headers/xdp.h"

#define XDP_DROP 1

__u64 passed, dropped;

SEC("xdp") int other_pass(struct xdp_md *ctx)
{
	__sync_fetch_and_add(&passed, 1);
	return XDP_PASS;
}

SEC("xdp") int other_drop(struct xdp_md *ctx)
{
	__sync_fetch_and_add(&dropped, 1);
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
