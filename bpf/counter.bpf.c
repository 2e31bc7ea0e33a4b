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
 * The shape is what measured best. Frequent kinds (plain IPv4 and IPv6, untagged or with one 802.1Q tag, and ARP) are
 * told by a few comparisons at known places, and counted right there. All else is classified afresh. There is no call,
 * and in count_frame no more than six registers: those that every frame would have to save and restore are not used.
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

/*
 * To the compiler these are new values from here on, and loads into them are done. So it does not compute things
 * earlier than they are needed, nor keep older values besides, for which it would take more registers than the six that
 * need not be saved; a test counts them.
 */
#define RENEW(a) asm volatile("" : "+r"(a))
#define RENEW3(a, b, c) asm volatile("" : "+r"(a), "+r"(b), "+r"(c))

/* Which variant is being compiled. Always a constant, so that the other one leaves no trace. */
enum buffers { ONE_BUFFER, MANY_BUFFERS };

/*
 * Plain increments: XDP runs in softirq, to its end, on one CPU, and no other CPU writes here.
 */
static __always_inline int count(struct count *counts, __u64 slot, struct xdp_md *ctx, void *data, void *end,
				 enum buffers buffers)
{
	counts[slot].packets++;
	counts[slot].bytes += buffers == MANY_BUFFERS ? bpf_xdp_get_buff_len(ctx) : end - data;
	/* Lest the compiler makes one of all places that count, to which the frequent kinds would have to jump. */
	asm volatile("");
	return XDP_PASS;
}

static __always_inline int is_tag(__u32 type)
{
	return type == TYPE_8021Q || type == TYPE_8021AD || type == TYPE_9100;
}

/* A slot that is set where it says so, and not before the comparison that leads there. */
static __always_inline __u64 just(__u64 slot)
{
	RENEW(slot);
	return slot;
}

/*
 * Hop-by-hop options, routing and destination options (0, 43 and 60): their length counts units of 8 bytes behind the
 * first 8. No other byte times 15 is without a bit of the mask. One jump, which is not taken, where comparisons would
 * need three, and a table a load with an address of 64 bits.
 */
static __always_inline int is_plain_extension(__u32 next)
{
	return !(next * 15 & 0xC7A);
}

/*
 * The slot of an IPv6 frame from the first next header on: the upper-layer protocol behind the extension headers.
 * A non-first fragment has no such header any more and counts as what its fragment header names. ESP, No Next
 * Header, Mobility, HIP and Shim6 are protocols of their own: nothing legible follows them.
 *
 * Each header lies where the one before says, so one load waits for the other. What the length counts is therefore told
 * by branches, for which a processor does not wait, and not by a value that depends on the next header.
 */
static __always_inline __u64 upper_layer(__u64 next, void *at, void *end)
{
	/* The end of the 8 bytes that all kinds have: that is what is compared with the end of the frame. */
	void *behind = at + sizeof(struct extension);

#pragma clang loop unroll(full)
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		struct extension *header;
		__u64 length;

		RENEW(behind);
		if (unlikely(behind > end))
			break;
		header = behind - sizeof(*header);
		if (likely(is_plain_extension(next))) {
			length = header->length;
			next = header->next;
			RENEW3(next, behind, length);
			behind += sizeof(*header);
			behind += length * 8;
		} else if (next == NEXT_FRAGMENT) {
			length = header->fragment & FRAGMENT_OFFSET;
			next = header->next;
			RENEW3(next, behind, length);
			if (length)
				return SLOT_IPV6 + next;
			behind += sizeof(*header);
		} else if (next == NEXT_AH) {
			length = header->length;
			next = header->next;
			RENEW3(next, behind, length);
			behind += sizeof(*header);
			behind += length * 4;
		} else {
			return SLOT_IPV6 + next;
		}
	}
	/* Deep enough, or less than 8 bytes are left: only an upper layer may come. */
	if (behind - sizeof(struct extension) > end || is_plain_extension(next) || next == NEXT_FRAGMENT ||
	    next == NEXT_AH)
		return just(SLOT_MALFORMED);
	return SLOT_IPV6 + next;
}

/* What is known of a frame: where it begins, or where its IPv6 header is, which is whole. */
enum known { ETHERNET, IPV6 };

/* The slot of any frame. */
static __always_inline __u64 classify(enum known known, void *at, void *end)
{
	struct ipv4 *ipv4;
	struct ipv6 *ipv6 = at;
	__u64 length;
	__u32 type;

	if (known == IPV6)
		goto ipv6;
	at += sizeof(struct ethernet);
	RENEW(at);
	if (at > end)
		return just(SLOT_MALFORMED);
	type = ((struct ethernet *)at - 1)->type;
#pragma clang loop unroll(full)
	for (int i = 0; i < MAX_TAGS && is_tag(type); i++) {
		at += sizeof(struct tag);
		RENEW(at);
		if (at > end)
			return just(SLOT_MALFORMED);
		type = ((struct tag *)at - 1)->type;
		RENEW(type);
	}
	RENEW(type);

	switch (type) {
	case TYPE_IPV4:
		ipv4 = at;
		if ((void *)(ipv4 + 1) > end)
			return just(SLOT_MALFORMED);
		length = (ipv4->version_ihl & 0xF) * 4;
		if (ipv4->version_ihl >> 4 != 4 || length < sizeof(*ipv4) || at + length > end)
			return just(SLOT_MALFORMED);
		return SLOT_IPV4 + ipv4->protocol;
	case TYPE_IPV6:
		ipv6 = at;
		if ((void *)(ipv6 + 1) > end || ipv6->version >> 4 != 6)
			return just(SLOT_MALFORMED);
	ipv6:
		return upper_layer(ipv6->next, ipv6 + 1, end);
	case TYPE_ARP:
		return at + ARP_SIZE > end ? just(SLOT_MALFORMED) : just(SLOT_ARP);
	default:
		return just(SLOT_OTHER);
	}
}

/* Next header values that are surely no extension header: 1 to 42 (TCP, UDP, ...) and ICMPv6. */
static __always_inline int is_common_upper_layer(__u32 next)
{
	return likely(next - 1 < 42) || next == NEXT_ICMPV6;
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

/* Counts a frame: the frequent kinds at once, the others as classify says. */
static __always_inline int count_any(struct xdp_md *ctx, enum buffers buffers)
{
	__u64 cpu = this_cpu(&ctx);
	struct count *counts = table[cpu];
	void *end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	struct ethernet *ethernet = data;
	struct tag *tag = (void *)(ethernet + 1);
	struct ipv4 *ipv4 = (void *)(ethernet + 1);
	struct ipv6 *ipv6 = (void *)(ethernet + 1);
	enum known known = ETHERNET;
	void *at = data;

	/* Never true, but the verifier does not know. */
	if (cpu >= CPUS)
		return XDP_PASS;
	/* One check of the length does for IPv4, the tag and ARP, which is shorter. */
	if ((void *)(ipv4 + 1) > end)
		goto rare;

	if (likely(ethernet->type == TYPE_IPV4)) {
		if (ipv4->version_ihl != 0x45)
			goto rare;
		return count(counts, SLOT_IPV4 + ipv4->protocol, ctx, data, end, buffers);
	}
	if (ethernet->type == TYPE_IPV6) {
		if ((void *)(ipv6 + 1) > end || ipv6->version >> 4 != 6)
			goto rare;
		if (!is_common_upper_layer(ipv6->next)) {
			known = IPV6;
			RENEW(at);
			at += sizeof(*ethernet);
			goto classify;
		}
		return count(counts, SLOT_IPV6 + ipv6->next, ctx, data, end, buffers);
	}
	if (ethernet->type == TYPE_ARP)
		return count(counts, SLOT_ARP, ctx, data, end, buffers);
	if (ethernet->type == TYPE_8021Q) {
		ipv4 = (void *)(tag + 1);
		ipv6 = (void *)(tag + 1);
		if (tag->type == TYPE_IPV4) {
			if ((void *)(ipv4 + 1) > end || ipv4->version_ihl != 0x45)
				goto rare;
			return count(counts, SLOT_IPV4 + ipv4->protocol, ctx, data, end, buffers);
		}
		if (tag->type == TYPE_IPV6) {
			if ((void *)(ipv6 + 1) > end || ipv6->version >> 4 != 6)
				goto rare;
			if (!is_common_upper_layer(ipv6->next)) {
				known = IPV6;
				RENEW(at);
				at += sizeof(*ethernet) + sizeof(*tag);
				goto classify;
			}
			return count(counts, SLOT_IPV6 + ipv6->next, ctx, data, end, buffers);
		}
		goto rare;
	}
rare:
	RENEW(at);
classify:
	return count(counts, classify(known, at, end), ctx, data, end, buffers);
}

SEC("xdp") int count_frame(struct xdp_md *ctx)
{
	return count_any(ctx, ONE_BUFFER);
}

SEC("xdp.frags") int count_frame_frags(struct xdp_md *ctx)
{
	return count_any(ctx, MANY_BUFFERS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
