/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Frames as they were on the wire, in generic mode. A part of counter.bpf.c.
 *
 * The kernel passes an aggregate to generic XDP as one packet: what a sender on the same machine hands over in one
 * piece (TSO and GSO over veth, tap and virtio), and what GRO or a NIC (LRO) has put together. On a wire it is several
 * frames, and each of them has the headers of the aggregate.
 */
#ifndef XDP_OPERATOR_WIRE_H
#define XDP_OPERATOR_WIRE_H

#include "headers/kernel.h"

/* How the kernel's memory is read. Always a constant. */
enum access {
	KFUNCS, /* Linux 6.2 */
	HELPER, /* any kernel with BTF, but not with lockdown=confidentiality */
};

/* What the kernel knows of an aggregate. */
struct aggregate {
	__u32 size;	/* payload bytes of each frame but the last, or 0 if this is no aggregate (skb_is_gso) */
	__u32 segments; /* number of frames, or 0 if this is not known: virtio_net and tap do not compute it */
	__u32 type;	/* GSO_... */
};

/*
 * In generic mode the buffer that the context describes is that of an skb, so that at its end is the shared info of the
 * skb (net/core/dev.c, bpf_prog_run_generic_xdp). BPF_PROG_TEST_RUN and native mode have a shared info at this place,
 * too, but in native mode nobody has set it.
 */
static __always_inline struct aggregate find_aggregate(struct xdp_md *ctx, enum access access)
{
	struct aggregate found = {};
	struct skb_shared_info *info;
	struct xdp_buff *buffer;
	void *start = 0;
	__u32 length = 0;
	__u16 value = 0;

	if (access == KFUNCS) {
		buffer = bpf_cast_to_kern_ctx(ctx);
		info = bpf_rdonly_cast(buffer->data_hard_start + buffer->frame_sz - ALIGNED(SHARED_INFO_SIZE),
				       SHARED_INFO_TYPE);
		found.size = info->gso_size;
		if (unlikely(found.size)) {
			found.segments = info->gso_segs;
			found.type = info->gso_type;
		}
		return found;
	}
	buffer = (void *)ctx;
	bpf_probe_read_kernel(&start, sizeof(start), &buffer->data_hard_start);
	bpf_probe_read_kernel(&length, sizeof(length), &buffer->frame_sz);
	info = start + length - ALIGNED(SHARED_INFO_SIZE);
	/* After an error the value is 0. */
	bpf_probe_read_kernel(&value, sizeof(value), &info->gso_size);
	found.size = value;
	if (unlikely(found.size)) {
		bpf_probe_read_kernel(&value, sizeof(value), &info->gso_segs);
		found.segments = value;
		bpf_probe_read_kernel(&length, sizeof(length), &info->gso_type);
		found.type = length;
	}
	return found;
}

/* What the frames of an aggregate repeat. */
struct headers {
	__u32 length;  /* in the aggregate, from the Ethernet header to the end of the innermost TCP, UDP or SCTP header
			*/
	__u32 removed; /* part of length that is in no frame on the wire */
};

/* Limits of parse_headers: the number of headers, and the position of the last one. */
#define MAX_HEADERS 16
#define MAX_POSITION 0xFFF

/* A kind of header is an ethertype, or this plus an IP protocol number. */
#define PROTOCOL 0x10000

/* Returns 0, as a value that for the verifier is any value up to MAX_POSITION: one of two successive numbers is even.
 */
static __always_inline __u64 any_zero(__u64 number)
{
	__u64 next = number + 1;

	RENEW(next);
	next *= number;
	RENEW(next);
	next = -(next & 1);
	RENEW(next);
	return next & MAX_POSITION;
}

/*
 * Returns the length of the headers. If a header is not known or not complete, it is the length of those before it.
 *
 * An aggregate of IPv6 with more than 64 KiB has a jumbo option, which the kernel removes when it makes frames of it,
 * if TCP follows immediately (net/ipv6/ip6_offload.c, include/net/ipv6.h: ipv6_has_hopopt_jumbo).
 *
 * This is a loop over single headers, after each of which the verifier knows the same of the position. So it follows
 * only one of the many combinations of headers. It would reject a second parser like classify, and a position whose
 * value it knows, because of too many states. Aggregates are large, so that the time for this does not matter.
 */
static __always_inline struct headers parse_headers(void *data, void *end, struct aggregate aggregate)
{
	struct headers found = {};
	__u32 kind = TYPE_ETHERNET, gso_type = aggregate.type;
	__u64 position = 0;
	__u64 zero = any_zero(aggregate.size);

#pragma clang loop unroll(disable)
	for (int i = 0; i < MAX_HEADERS; i++) {
		__u8 *at;

		if (position > MAX_POSITION)
			break;
		position = (position + zero) & MAX_POSITION;
		RENEW(position);
		at = data + position;
		if (kind == TYPE_ETHERNET) {
			if ((void *)at + sizeof(struct ethernet) > end)
				break;
			kind = ((struct ethernet *)at)->type;
			position += sizeof(struct ethernet);
		} else if (kind == TYPE_IPV6) {
			if ((void *)at + sizeof(struct ipv6) > end)
				break;
			kind = PROTOCOL + ((struct ipv6 *)at)->next;
			position += sizeof(struct ipv6);
		} else if (kind == TYPE_IPV4) {
			if ((void *)at + sizeof(struct ipv4) > end)
				break;
			kind = PROTOCOL + ((struct ipv4 *)at)->protocol;
			position += (((struct ipv4 *)at)->version_ihl & 0xF) * 4;
		} else if (kind == PROTOCOL + NEXT_TCP) {
			if ((void *)at + sizeof(struct tcp) > end)
				break;
			position += (((struct tcp *)at)->offset >> 4) * 4;
			found.length = position;
			break;
		} else if (kind == PROTOCOL + NEXT_SCTP) {
			position += 12;
			found.length = position;
			break;
		} else {
			/* All others have at least 4 bytes, and the payload of an aggregate is longer. */
			if ((void *)at + sizeof(struct encapsulation) > end)
				break;
			if (is_tag(kind)) {
				kind = ((struct tag *)at)->type;
				position += sizeof(struct tag);
			} else if (kind == PROTOCOL + NEXT_UDP) {
				struct encapsulation *inner = (void *)at + sizeof(struct udp);

				position += sizeof(struct udp);
				if (!(gso_type & (GSO_UDP_TUNNEL | GSO_UDP_TUNNEL_CSUM)) || (void *)(inner + 1) > end) {
					found.length = position;
					break;
				}
				/* VXLAN (RFC 7348) has zeros here, Geneve (RFC 8926) the type of what is in it. */
				kind = inner->protocol ? inner->protocol : TYPE_ETHERNET;
				position += sizeof(*inner);
				if (inner->protocol)
					position += (inner->version_length & 0x3F) * 4;
			} else if (kind == PROTOCOL + NEXT_GRE && gso_type & (GSO_GRE | GSO_GRE_CSUM)) {
				__u32 flags = ((struct gre *)at)->flags;

				/* RFC 2784 and RFC 2890: checksum, key and sequence number. */
				kind = ((struct gre *)at)->protocol;
				position += sizeof(struct gre);
				position += flags & GRE_CHECKSUM ? 4 : 0;
				position += flags & GRE_KEY ? 4 : 0;
				position += flags & GRE_SEQUENCE ? 4 : 0;
			} else if (kind == PROTOCOL + NEXT_IPV4 && gso_type & (GSO_IPXIP4 | GSO_IPXIP6)) {
				kind = TYPE_IPV4;
			} else if (kind == PROTOCOL + NEXT_IPV6 && gso_type & (GSO_IPXIP4 | GSO_IPXIP6)) {
				kind = TYPE_IPV6;
			} else if (kind >= PROTOCOL && is_plain_extension(kind - PROTOCOL)) {
				struct extension *header = (void *)at;

				if (kind == PROTOCOL + NEXT_HOP_BY_HOP && header->next == NEXT_TCP && !header->length &&
				    at[2] == OPTION_JUMBO)
					found.removed = sizeof(*header);
				kind = PROTOCOL + header->next;
				position += sizeof(*header) + header->length * 8;
			} else {
				break;
			}
		}
		found.length = position;
	}
	if (found.length > MAX_POSITION || data + (found.length & MAX_POSITION) > end)
		found.length = 0;
	return found;
}

/* Counts all frames of an aggregate. Their class is that of the aggregate. */
static __always_inline int count_aggregate(struct xdp_md *ctx, struct aggregate aggregate, enum increments increments)
{
	__u64 cpu = this_cpu(&ctx);
	void *end = (void *)(long)ctx->data_end;
	void *data = (void *)(long)ctx->data;
	struct count *counts = table[cpu];
	__u64 length = end - data;
	__u64 segments = aggregate.segments;
	struct headers headers;
	__u64 slot;

	/* Never true, but the verifier needs this check. */
	if (cpu >= CPUS)
		return XDP_PASS;
	headers = parse_headers(data, end, aggregate);
	if (!segments && length > headers.length)
		segments = (length - headers.length + aggregate.size - 1) / aggregate.size;
	if (!segments)
		segments = 1;
	length += (segments - 1) * (headers.length - headers.removed) - headers.removed;
	slot = classify(ETHERNET, data, end);
	if (increments == ATOMIC) {
		__sync_fetch_and_add(&counts[slot].packets, segments);
		__sync_fetch_and_add(&counts[slot].bytes, length);
	} else {
		counts[slot].packets += segments;
		counts[slot].bytes += length;
	}
	return XDP_PASS;
}

static __always_inline int count_wire(struct xdp_md *ctx, enum access access, enum increments increments)
{
	struct aggregate aggregate = find_aggregate(ctx, access);

	if (unlikely(is_own_packet((void *)(long)ctx->data, (void *)(long)ctx->data_end)))
		return XDP_PASS;
	if (likely(!aggregate.size))
		return count_any(ctx, ONE_BUFFER, increments);
	return count_aggregate(ctx, aggregate, increments);
}

#endif
