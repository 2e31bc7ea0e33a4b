// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/*
 * Programs with which the counting program is compared. Every program passes every frame on, so that they differ by
 * their counting only.
 */
#include "../../bpf/headers/xdp.h"

#define MAP_ARRAY_PER_CPU 6 /* BPF_MAP_TYPE_PERCPU_ARRAY of include/uapi/linux/bpf.h */

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;

/* The floor: the cost of running any program. */
SEC("xdp") int empty(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/*
 * The limit: no counter of packets and bytes can cost less. It counts all frames together, and all CPUs use the same
 * counter, so it is exact on one CPU only.
 */
struct {
	__u64 packets;
	__u64 bytes;
} all;

SEC("xdp") int limit(struct xdp_md *ctx)
{
	all.packets++;
	all.bytes += ctx->data_end - ctx->data;
	return XDP_PASS;
}

/*
 * xdp1, written from scratch after the public description of the kernel sample: it counts packets, not bytes, in a
 * per-CPU array of 256 longs. The key is the protocol of IPv4 or the first next header of IPv6, after up to two
 * VLAN tags, and 0 for everything else. A frame that is too short for its Ethernet header or its tags is not counted.
 * Headers are found by their offset from the start of the frame, as in the sample, to get similar compiled code.
 * The sample drops the frames. This program passes them on.
 */
#define XDP1_TAGS 2

struct {
	int (*type)[MAP_ARRAY_PER_CPU];
	int (*max_entries)[256];
	__u32 *key;
	long *value;
} xdp1_packets SEC(".maps");

static __always_inline int xdp1_is_tag(__u16 type)
{
	return type == TYPE_8021Q || type == TYPE_8021AD;
}

SEC("xdp") int xdp1(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	struct ethernet *ethernet = data;
	__u64 offset = sizeof(*ethernet);
	__u32 protocol;
	long *packets;
	__u16 type;

	if (data + offset > end)
		return XDP_PASS;
	type = ethernet->type;
#pragma clang loop unroll(full)
	for (int i = 0; i < XDP1_TAGS; i++) {
		if (xdp1_is_tag(type)) {
			struct tag *tag = data + offset;

			offset += sizeof(*tag);
			if (data + offset > end)
				return XDP_PASS;
			type = tag->type;
		}
	}

	if (type == TYPE_IPV4) {
		struct ipv4 *ipv4 = data + offset;

		protocol = (void *)(ipv4 + 1) > end ? 0 : ipv4->protocol;
	} else if (type == TYPE_IPV6) {
		struct ipv6 *ipv6 = data + offset;

		protocol = (void *)(ipv6 + 1) > end ? 0 : ipv6->next;
	} else {
		protocol = 0;
	}
	packets = bpf_map_lookup_elem(&xdp1_packets, &protocol);
	if (packets)
		(*packets)++;
	return XDP_PASS;
}

/* Not measured: sends live frames from an interface, so that the other end of the veth pair receives them. */
const volatile __u32 sender;

SEC("xdp") int send(struct xdp_md *ctx)
{
	return bpf_redirect(sender, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
