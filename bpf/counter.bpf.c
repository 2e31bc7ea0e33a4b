// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/*
 * Counts frames and bytes per protocol and passes every frame on untouched.
 *
 * What is counted is the frame as it gets here: a VLAN tag that the NIC has taken off is neither seen nor measured.
 *
 * Kernel 5.10 and later. Needs CAP_PERFMON to load, since the length of a frame is data_end - data.
 *
 * Two variants of one program, of which the loader takes one for each interface. count_frame is for frames that fit
 * into one buffer, which is what a driver gives to a program that says nothing of fragments: the length is then a
 * subtraction. count_frame_frags (xdp.frags, Linux 5.18) is for interfaces whose MTU asks for more: what is parsed is
 * the first buffer, and the length of all of them is asked of the kernel.
 *
 * The shape is what measured best. count_frequent holds the frequent cases (plain IPv4 and IPv6, untagged or with
 * one 802.1Q tag, and ARP). All else is left to a subprogram, which starts afresh and counts by itself: if its result
 * came back to be counted here, every frame would pay for registers saved across the call.
 */
#include "headers/xdp.h"
#include "counter.h"

/*
 * One map value with the counts of every CPU. The loader makes it as large as this machine's possible CPUs and
 * writes their number into the instructions that compare with CPUS. A data section rather than a map to look up in:
 * its address is a constant of the program, which saves 2 ns for each frame.
 */
struct count table[CPUS][SLOTS];

/* Never read by the program: for readers of the object. */
const volatile enum layout layout = LAYOUT;
const volatile enum slot slots = SLOTS;
const volatile enum depth depth = MAX_TAGS;
const volatile enum machine machine = CPUS;

/* Which variant is being compiled. Always a constant, so that the other one leaves no trace. */
enum buffers { ONE_BUFFER, MANY_BUFFERS };

/*
 * Plain increments: XDP runs in softirq, to its end, on one CPU, and no other CPU writes here.
 */
static __always_inline int count(struct count *counts, __u32 slot, struct xdp_md *ctx, void *data, void *end,
				 enum buffers buffers)
{
	counts[slot].packets++;
	counts[slot].bytes += buffers == MANY_BUFFERS ? bpf_xdp_get_buff_len(ctx) : end - data;
	return XDP_PASS;
}

static __always_inline int is_tag(__u16 type)
{
	return type == TYPE_8021Q || type == TYPE_8021AD || type == TYPE_9100;
}

/*
 * By next header value, the extension headers: EXTENSION, and by how many bits the length field, taken as units of
 * 8 bytes, has to be shifted right. A table rather than branches: the verifier would follow each of them through
 * each of the headers behind.
 */
#define EXTENSION 0x80
#define SHIFT 0x0F
static const __u8 extensions[256] = {
	[NEXT_HOP_BY_HOP] = EXTENSION,	  [NEXT_ROUTING] = EXTENSION,
	[NEXT_OPTIONS] = EXTENSION,	  [NEXT_AH] = EXTENSION | 1, /* units of 4 bytes */
	[NEXT_FRAGMENT] = EXTENSION | 11,			     /* a reserved byte, nothing of which is left */
};

/*
 * The slot of an IPv6 frame from the first next header on: the upper-layer protocol behind the extension headers.
 * A non-first fragment has no such header any more and counts as what its fragment header names. ESP, No Next
 * Header, Mobility, HIP and Shim6 are protocols of their own: nothing legible follows them.
 */
static __always_inline __u32 upper_layer(__u8 next, void *at, void *end)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i <= MAX_EXTENSIONS; i++) {
		struct extension *header = at;
		__u8 kind = extensions[next];
		__u64 size;

		if (!kind)
			return SLOT_IPV6 + next;
		if (i == MAX_EXTENSIONS || (void *)(header + 1) > end)
			return SLOT_MALFORMED;
		if (next == NEXT_FRAGMENT && (header->fragment & FRAGMENT_OFFSET))
			return SLOT_IPV6 + header->next;
		size = (__u64)header->length << 3 >> (kind & SHIFT);
		/* The compiler sees that 255 * 8 is the most there can be, the verifier has to be told. */
		asm volatile("" : "+r"(size));
		at += sizeof(*header) + (size & 0x7FF);
		if (at > end)
			return SLOT_MALFORMED;
		next = header->next;
	}
	return SLOT_MALFORMED;
}

/* The slot of any frame. */
static __always_inline __u32 classify(void *data, void *end)
{
	struct ethernet *ethernet = data;
	void *at = ethernet + 1;
	struct ipv4 *ipv4;
	struct ipv6 *ipv6;
	__u32 length;
	__u16 type;

	if (at > end)
		return SLOT_MALFORMED;
	type = ethernet->type;
#pragma clang loop unroll(full)
	for (int i = 0; i < MAX_TAGS && is_tag(type); i++) {
		struct tag *tag = at;

		at = tag + 1;
		if (at > end)
			return SLOT_MALFORMED;
		type = tag->type;
	}

	switch (type) {
	case TYPE_IPV4:
		ipv4 = at;
		if ((void *)(ipv4 + 1) > end)
			return SLOT_MALFORMED;
		length = (ipv4->version_ihl & 0xF) * 4;
		if (ipv4->version_ihl >> 4 != 4 || length < sizeof(*ipv4) || at + length > end)
			return SLOT_MALFORMED;
		return SLOT_IPV4 + ipv4->protocol;
	case TYPE_IPV6:
		ipv6 = at;
		if ((void *)(ipv6 + 1) > end || ipv6->version >> 4 != 6)
			return SLOT_MALFORMED;
		return upper_layer(ipv6->next, ipv6 + 1, end);
	case TYPE_ARP:
		return at + ARP_SIZE > end ? SLOT_MALFORMED : SLOT_ARP;
	default:
		return SLOT_OTHER;
	}
}

/* Counts any frame, slowly: a subprogram for each variant. */
static __noinline int count_any(struct xdp_md *ctx, __u64 cpu, void *data, void *end)
{
	return count(table[cpu], classify(data, end), ctx, data, end, ONE_BUFFER);
}

static __noinline int count_any_frags(struct xdp_md *ctx, __u64 cpu, void *data, void *end)
{
	return count(table[cpu], classify(data, end), ctx, data, end, MANY_BUFFERS);
}

static __always_inline int count_rare(__u64 cpu, struct xdp_md *ctx, void *data, void *end, enum buffers buffers)
{
	return buffers == MANY_BUFFERS ? count_any_frags(ctx, cpu, data, end) : count_any(ctx, cpu, data, end);
}

/* Next header values that are surely no extension header: 1 to 42 (TCP, UDP, ...) and ICMPv6. */
static __always_inline int is_common_upper_layer(__u8 next)
{
	return (__u8)(next - 1) < 42 || next == NEXT_ICMPV6;
}

/*
 * The number of this CPU. Written by hand because of what a compiler makes of a call: it would keep ctx in a register
 * that has to be saved and restored for every frame, since the call may overwrite the others. Kernels that know better
 * (bpf_fastcall, Linux 6.12) take the saving away where it looks like this, and the call too; the others do as it says.
 */
static __always_inline __u64 this_cpu(struct xdp_md **ctx)
{
	register struct xdp_md *r1 asm("r1") = *ctx;
	register __u64 r0 asm("r0");

	asm volatile("*(u64 *)(r10 - 8) = r1\n"
		     "call 8\n" /* bpf_get_smp_processor_id */
		     "r1 = *(u64 *)(r10 - 8)\n"
		     : "=r"(r0), "+r"(r1)
		     :
		     : "r2", "r3", "r4", "r5", "memory");
	*ctx = r1;
	return r0;
}

/* Counts the frequent kinds of frames, quickly. */
static __always_inline int count_frequent(struct xdp_md *ctx, enum buffers buffers)
{
	__u64 cpu = this_cpu(&ctx);
	struct count *counts = table[cpu];
	void *end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	struct ethernet *ethernet = data;
	struct tag *tag = (void *)(ethernet + 1);
	struct ipv4 *ipv4 = (void *)(ethernet + 1);
	struct ipv6 *ipv6 = (void *)(ethernet + 1);

	/* Never true, but the verifier does not know. */
	if (cpu >= CPUS)
		return XDP_PASS;
	/* One check of the length does for IPv4, the tag and ARP, which is shorter. */
	if ((void *)(ipv4 + 1) > end)
		return count_rare(cpu, ctx, data, end, buffers);

	if (likely(ethernet->type == TYPE_IPV4)) {
		if (ipv4->version_ihl != 0x45)
			return count_rare(cpu, ctx, data, end, buffers);
		return count(counts, SLOT_IPV4 + ipv4->protocol, ctx, data, end, buffers);
	}
	if (ethernet->type == TYPE_IPV6) {
		if ((void *)(ipv6 + 1) > end || ipv6->version >> 4 != 6 || !is_common_upper_layer(ipv6->next))
			return count_rare(cpu, ctx, data, end, buffers);
		return count(counts, SLOT_IPV6 + ipv6->next, ctx, data, end, buffers);
	}
	if (ethernet->type == TYPE_8021Q) {
		ipv4 = (void *)(tag + 1);
		ipv6 = (void *)(tag + 1);
		if (tag->type == TYPE_IPV4) {
			if ((void *)(ipv4 + 1) > end || ipv4->version_ihl != 0x45)
				return count_rare(cpu, ctx, data, end, buffers);
			return count(counts, SLOT_IPV4 + ipv4->protocol, ctx, data, end, buffers);
		}
		if (tag->type == TYPE_IPV6) {
			if ((void *)(ipv6 + 1) > end || ipv6->version >> 4 != 6 || !is_common_upper_layer(ipv6->next))
				return count_rare(cpu, ctx, data, end, buffers);
			return count(counts, SLOT_IPV6 + ipv6->next, ctx, data, end, buffers);
		}
		return count_rare(cpu, ctx, data, end, buffers);
	}
	if (ethernet->type == TYPE_ARP)
		return count(counts, SLOT_ARP, ctx, data, end, buffers);
	return count_rare(cpu, ctx, data, end, buffers);
}

SEC("xdp") int count_frame(struct xdp_md *ctx)
{
	return count_frequent(ctx, ONE_BUFFER);
}

SEC("xdp.frags") int count_frame_frags(struct xdp_md *ctx)
{
	return count_frequent(ctx, MANY_BUFFERS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
