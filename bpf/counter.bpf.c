// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/*
 * Counts frames and bytes per protocol, and passes every frame on unchanged.
 *
 * Frames are counted as they arrive here. A VLAN tag that the NIC has removed is not seen, and not part of the length.
 *
 * Requires Linux 5.10, and CAP_PERFMON to load, because it computes the length of a frame as data_end - data.
 *
 * There are several variants of the program. The loader selects one for each interface. count_frame is for native mode
 * and frames that fit into one buffer. A driver passes only such frames to a program without fragment support, and the
 * length is a subtraction. count_frame_frags (xdp.frags, Linux 5.18) is for native mode and interfaces with a larger
 * MTU. It parses the first buffer, and gets the length of all buffers from a helper. The others are for generic mode.
 * The kernel copies every frame into one buffer for them, but also passes packets that the interface has not received,
 * and aggregates of many frames. count_frame_wire_kfunc (Linux 6.2) and count_frame_wire_helper count the frames of an
 * aggregate, and count_frame_generic, for kernels that load neither of them, counts it as one. Kernels with PREEMPT_RT
 * have variants of their own of all these.
 *
 * This structure was the fastest in measurements. Frequent kinds of frames (plain IPv4 and IPv6, untagged or with one
 * 802.1Q tag, and ARP) are recognized by a few comparisons at fixed offsets, and counted right there. All other frames
 * are classified from the beginning. There are no function calls, and count_frame uses only the six registers that need
 * not be saved and restored for every frame.
 */
#include "headers/xdp.h"
#include "counter.h"

/*
 * One map value with the counts of all CPUs. The loader sets its size for the possible CPUs of the machine, and writes
 * their number into the instruction that compares with CPUS. It is a data section instead of a map with a lookup,
 * because its address is a constant in the program, which saves 2 ns per frame.
 */
struct count table[CPUS][SLOTS];

/* Not read by the program, but by readers of the object file. */
const volatile enum layout layout = LAYOUT;
const volatile enum slot slots = SLOTS;
const volatile enum depth depth = MAX_TAGS;
const volatile enum machine machine = CPUS;

/*
 * For the compiler these are new values from here on, and loads into them are complete. So it does not compute values
 * earlier than they are needed, and does not keep older ones, for which it would need more than the six registers that
 * need not be saved. A test checks the registers.
 */
#define RENEW(a) asm volatile("" : "+r"(a))
#define RENEW3(a, b, c) asm volatile("" : "+r"(a), "+r"(b), "+r"(c))

/* The variant that is compiled. It is always a constant, so that the code of the other variant is removed. */
enum buffers { ONE_BUFFER, MANY_BUFFERS };

/* How a count is increased. Always a constant, too. */
enum increments { PLAIN, ATOMIC };

/*
 * Plain increments are sufficient if no other run of the program on the same CPU comes between the load and the store.
 * No other CPU writes here.
 *
 * The program runs with bottom halves disabled: in the NET_RX softirq, in threaded NAPI and backlog threads, and in
 * processes that write to a tun device. Without PREEMPT_RT this is not preemptible, and interrupts do not run XDP. With
 * PREEMPT_RT it is preemptible, but cannot migrate. Then the per-CPU lock softirq_ctrl.lock (kernel/softirq.c,
 * __local_bh_disable_ip) allows one such section per CPU at a time: always before Linux 6.18, and with
 * CONFIG_PREEMPT_RT_NEEDS_BH_LOCK since. Without this option, which is off by default, a thread of higher priority can
 * receive frames on the same CPU between the two instructions. So the variants for PREEMPT_RT increase by one
 * instruction.
 */
static __always_inline int count(struct count *counts, __u64 slot, struct xdp_md *ctx, void *data, void *end,
				 enum buffers buffers, enum increments increments)
{
	if (increments == ATOMIC) {
		__sync_fetch_and_add(&counts[slot].packets, 1);
		__sync_fetch_and_add(&counts[slot].bytes,
				     buffers == MANY_BUFFERS ? bpf_xdp_get_buff_len(ctx) : end - data);
	} else {
		counts[slot].packets++;
		counts[slot].bytes += buffers == MANY_BUFFERS ? bpf_xdp_get_buff_len(ctx) : end - data;
	}
	/* Keeps the compiler from merging the counting sites into one, which would cost the frequent kinds a jump. */
	asm volatile("");
	return XDP_PASS;
}

static __always_inline int is_tag(__u32 type)
{
	return type == TYPE_8021Q || type == TYPE_8021AD || type == TYPE_9100;
}

/* Keeps the compiler from setting the slot before the comparison that leads here. */
static __always_inline __u64 just(__u64 slot)
{
	RENEW(slot);
	return slot;
}

/*
 * Hop-by-hop options, routing and destination options (0, 43 and 60). Their length is in units of 8 bytes after the
 * first 8. For every other byte, the product with 15 has a bit of the mask. This is one jump, which is not taken.
 * Comparisons would need three jumps, and a table would need a load with a 64-bit address.
 */
static __always_inline int is_plain_extension(__u32 next)
{
	return !(next * 15 & 0xC7A);
}

/*
 * Returns the slot of an IPv6 frame, starting from the first next header: that of the upper-layer protocol after the
 * extension headers. A fragment other than the first does not contain this header, and counts as the protocol in its
 * fragment header. ESP, No Next Header, Mobility, HIP and Shim6 count as protocols, because nothing after them can be
 * parsed.
 *
 * The position of each header depends on the previous one, so the loads depend on each other. The unit of the length is
 * therefore selected by branches, which a processor predicts, and not by a value that depends on the next header.
 */
static __always_inline __u64 upper_layer(__u64 next, void *at, void *end)
{
	/* The end of the first 8 bytes, which every kind of header has. This is compared with the end of the frame. */
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
	/* The limit is reached, or less than 8 bytes are left: the next header must be an upper-layer protocol. */
	if (behind - sizeof(struct extension) > end || is_plain_extension(next) || next == NEXT_FRAGMENT ||
	    next == NEXT_AH)
		return just(SLOT_MALFORMED);
	return SLOT_IPV6 + next;
}

/* The start of classification: the Ethernet header, or a complete IPv6 header. */
enum known { ETHERNET, IPV6 };

/* Returns the slot of any frame. */
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

/* Next header values that are no extension header: 1 to 42 (TCP, UDP, ...) and ICMPv6. */
static __always_inline int is_common_upper_layer(__u32 next)
{
	return likely(next - 1 < 42) || next == NEXT_ICMPV6;
}

/*
 * Returns the number of this CPU. It is written in assembly, because for a call the compiler would keep ctx in a
 * register that must be saved and restored for every frame, as the call can overwrite the others. Linux 6.12 and later
 * recognize this pattern (bpf_fastcall), and remove the saving and the call. Older kernels execute it as it is.
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

/* Counts a frame: the frequent kinds immediately, the others by classify. */
static __always_inline int count_any(struct xdp_md *ctx, enum buffers buffers, enum increments increments)
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

	/* Never true, but the verifier needs this check. */
	if (cpu >= CPUS)
		return XDP_PASS;
	/* One check of the length is enough for IPv4, and for the tag and ARP, which are not longer. */
	if ((void *)(ipv4 + 1) > end)
		goto rare;

	if (likely(ethernet->type == TYPE_IPV4)) {
		if (ipv4->version_ihl != 0x45)
			goto rare;
		return count(counts, SLOT_IPV4 + ipv4->protocol, ctx, data, end, buffers, increments);
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
		return count(counts, SLOT_IPV6 + ipv6->next, ctx, data, end, buffers, increments);
	}
	if (ethernet->type == TYPE_ARP)
		return count(counts, SLOT_ARP, ctx, data, end, buffers, increments);
	if (ethernet->type == TYPE_8021Q) {
		ipv4 = (void *)(tag + 1);
		ipv6 = (void *)(tag + 1);
		if (tag->type == TYPE_IPV4) {
			if ((void *)(ipv4 + 1) > end || ipv4->version_ihl != 0x45)
				goto rare;
			return count(counts, SLOT_IPV4 + ipv4->protocol, ctx, data, end, buffers, increments);
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
			return count(counts, SLOT_IPV6 + ipv6->next, ctx, data, end, buffers, increments);
		}
		goto rare;
	}
rare:
	RENEW(at);
classify:
	return count(counts, classify(known, at, end), ctx, data, end, buffers, increments);
}

/*
 * Packets that the node sends, in generic mode.
 *
 * The kernel gives a copy of a multicast or broadcast packet that the node sends to the node's own receivers, through
 * the interface that sends it (net/core/dev.c, dev_loopback_xmit). The interface does not receive this copy, and
 * rx_packets does not include it, but generic XDP sees it. It starts with the IP header instead of an Ethernet header,
 * and nothing else in xdp_buff differs. So it is recognized by its content: it is a complete IP packet to a group, and
 * no Ethernet frame can have this content.
 */

/*
 * Reports whether the first 20 bytes are also the start of a frame that the node would accept as IPv4, IPv6 or ARP.
 * Such a frame is always counted, so that no sender can hide packets by its choice of MAC addresses.
 */
static __always_inline int is_frame(struct ethernet *ethernet, void *end)
{
	struct ipv4 *ipv4 = (void *)(ethernet + 1);
	struct ipv6 *ipv6 = (void *)(ethernet + 1);
	struct arp *arp = (void *)(ethernet + 1);
	struct tag *tag = (void *)(ethernet + 1);
	long length = end - (void *)ethernet - sizeof(*ethernet);

	switch (ethernet->type) {
	case TYPE_IPV4:
		return ipv4->version_ihl >> 4 == 4 && ntohs(ipv4->total_length) <= length;
	case TYPE_IPV6:
		return ipv6->version >> 4 == 6 && ntohs(ipv6->payload_length) + sizeof(*ipv6) <= length;
	case TYPE_ARP:
		return arp->hardware == ARP_ETHERNET && arp->protocol == TYPE_IPV4;
	case TYPE_8021Q:
	case TYPE_8021AD:
	case TYPE_9100:
		return is_tag(tag->type) || tag->type == TYPE_IPV4 || tag->type == TYPE_IPV6 || tag->type == TYPE_ARP;
	default:
		return 0;
	}
}

/* Reports whether the header's checksum is right (RFC 1071, which also says that the order of bytes does not matter).
 */
static __always_inline int has_valid_checksum(struct ipv4 *ipv4, void *end)
{
	__u32 words = ipv4->version_ihl & 0xF;
	void *behind = ipv4;
	__u64 sum = 0;

#pragma clang loop unroll(full)
	for (int i = 0; i < 15; i++) {
		behind += sizeof(__u32);
		RENEW(behind); /* a register for the end of the word, and none for others */
		if (i < words) {
			if (behind > end)
				return 0;
			sum += *((__u32 *)behind - 1);
		}
	}
	sum = (sum & 0xFFFFFFFF) + (sum >> 32);
	sum = (sum & 0xFFFF) + (sum >> 16);
	sum = (sum & 0xFFFF) + (sum >> 16);
	sum = (sum & 0xFFFF) + (sum >> 16);
	return sum == 0xFFFF;
}

/*
 * Any destination is accepted, because a route can make any address a broadcast address. The first byte, 0x45 to 0x4F,
 * is that of an Ethernet frame's destination. If it is odd, this is a group address, and there is no group like this.
 * If it is even, there are options. Then the packet must have Router Alert (RFC 2113), which IGMP uses. In an Ethernet
 * frame these two bytes are the fragment offset of IPv4 with the reserved bit, or a next header of IPv6 that is not
 * assigned.
 */
static __always_inline int is_own_ipv4(struct ipv4 *ipv4, void *end)
{
	__u16 *option = (void *)(ipv4 + 1);

	if ((ipv4->version_ihl & 0xF) < 5 || ntohs(ipv4->total_length) != end - (void *)ipv4)
		return 0;
	if (!(ipv4->version_ihl & 1) && ((void *)(option + 1) > end || *option != ROUTER_ALERT))
		return 0;
	return has_valid_checksum(ipv4, end);
}

/*
 * The first byte, 0x60 to 0x6F, can be that of a card's address. But the next header would be the first byte of the
 * source address. If it is odd, as that of UDP is, this would be a group address, and no frame has a group as its
 * source. If it is even, as those of ICMPv6, of a fragment and of hop-by-hop options are, the source must have zeros
 * where an Ethernet frame has its type, as link-local addresses have.
 */
static __always_inline int is_own_ipv6(struct ipv6 *ipv6, void *end)
{
	if ((void *)(ipv6 + 1) > end || ntohs(ipv6->payload_length) + sizeof(*ipv6) != end - (void *)ipv6)
		return 0;
	return ipv6->destination[0] == 0xFF && (ipv6->next & 1 || ((struct ethernet *)ipv6)->type == 0);
}

/* Reports whether this is a packet that the node itself sends. */
static __always_inline int is_own_packet(void *data, void *end)
{
	struct ipv4 *ipv4 = data;

	if ((void *)(ipv4 + 1) > end)
		return 0;
	/* Version 4 or 6. For most frames this is the only comparison. */
	if (likely((ipv4->version_ihl & 0xD0) != 0x40) || is_frame(data, end))
		return 0;
	RENEW(ipv4); /* the first byte is loaded again instead of kept in a register */
	return ipv4->version_ihl >> 4 == 4 ? is_own_ipv4(ipv4, end) : is_own_ipv6((void *)ipv4, end);
}

#include "wire.h"

static __always_inline int count_received(struct xdp_md *ctx, enum increments increments)
{
	if (unlikely(is_own_packet((void *)(long)ctx->data, (void *)(long)ctx->data_end)))
		return XDP_PASS;
	return count_any(ctx, ONE_BUFFER, increments);
}

SEC("xdp") int count_frame(struct xdp_md *ctx)
{
	return count_any(ctx, ONE_BUFFER, PLAIN);
}

SEC("xdp.frags") int count_frame_frags(struct xdp_md *ctx)
{
	return count_any(ctx, MANY_BUFFERS, PLAIN);
}

SEC("xdp") int count_frame_generic(struct xdp_md *ctx)
{
	return count_received(ctx, PLAIN);
}

SEC("xdp") int count_frame_wire_kfunc(struct xdp_md *ctx)
{
	return count_wire(ctx, KFUNCS, PLAIN);
}

SEC("xdp") int count_frame_wire_helper(struct xdp_md *ctx)
{
	return count_wire(ctx, HELPER, PLAIN);
}

/* The same for kernels with PREEMPT_RT. */
SEC("xdp") int count_frame_rt(struct xdp_md *ctx)
{
	return count_any(ctx, ONE_BUFFER, ATOMIC);
}

SEC("xdp.frags") int count_frame_frags_rt(struct xdp_md *ctx)
{
	return count_any(ctx, MANY_BUFFERS, ATOMIC);
}

SEC("xdp") int count_frame_generic_rt(struct xdp_md *ctx)
{
	return count_received(ctx, ATOMIC);
}

SEC("xdp") int count_frame_wire_kfunc_rt(struct xdp_md *ctx)
{
	return count_wire(ctx, KFUNCS, ATOMIC);
}

SEC("xdp") int count_frame_wire_helper_rt(struct xdp_md *ctx)
{
	return count_wire(ctx, HELPER, ATOMIC);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
