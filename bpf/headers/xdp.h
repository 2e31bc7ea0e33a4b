/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The little that counter.bpf.c needs of the kernel and of the packet formats, written here so that the
 * generated object depends on clang alone and comes out the same on every machine.
 *
 * Kernel: include/uapi/linux/bpf.h. Formats: Ethernet II and 802.1Q (IEEE 802.3, 802.1Q), RFC 791, RFC 8200,
 * RFC 4302, RFC 2113, RFC 826 and those named below. All are read straight from the frame: fields are in network byte
 * order.
 */
#ifndef XDP_OPERATOR_XDP_H
#define XDP_OPERATOR_XDP_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Both targets, amd64 and arm64, are little endian. */
#define htons(x) __builtin_bswap16(x)
#define ntohs(x) __builtin_bswap16(x)

#define XDP_PASS 2

struct xdp_md {
	__u32 data;
	__u32 data_end;
	__u32 data_meta;
	__u32 ingress_ifindex;
	__u32 rx_queue_index;
	__u32 egress_ifindex;
};

static __u64 (*bpf_xdp_get_buff_len)(struct xdp_md *ctx) = (void *)188;

struct ethernet {
	__u8 destination[6];
	__u8 source[6];
	__u16 type;
};

/* What follows the ethertype of an 802.1Q, 802.1ad or 0x9100 tag. */
struct tag {
	__u16 control;
	__u16 type;
};

struct ipv4 {
	__u8 version_ihl; /* version << 4 | header length in 4 bytes */
	__u8 tos;
	__u16 total_length;
	__u16 id;
	__u16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__u8 source[4];
	__u8 destination[4];
};

struct ipv6 {
	__u8 version; /* version << 4 | high half of the traffic class */
	__u8 flow[3];
	__u16 payload_length;
	__u8 next;
	__u8 hop_limit;
	__u8 source[16];
	__u8 destination[16];
};

/* The common start of hop-by-hop, routing and destination options, AH, and the whole fragment header. */
struct extension {
	__u8 next;
	__u8 length;	/* options and routing: 8 bytes each after the first 8; AH: 4 bytes each after the first 8 */
	__u16 fragment; /* fragment header only: offset << 3 | reserved << 1 | more */
	__u32 id;
};

struct tcp {
	__u16 source;
	__u16 destination;
	__u32 sequence;
	__u32 acknowledgment;
	__u8 offset; /* length of the header in 4 bytes << 4 */
	__u8 flags;
	__u16 window;
	__u16 checksum;
	__u16 urgent;
};

struct udp {
	__u16 source;
	__u16 destination;
	__u16 length;
	__u16 checksum;
};

/* The start of VXLAN, where the protocol is 0, and of Geneve. */
struct encapsulation {
	__u8 version_length; /* Geneve: version << 6 | length of the options in 4 bytes */
	__u8 flags;
	__u16 protocol;
	__u32 network;
};

struct gre {
	__u16 flags;
	__u16 protocol;
};

/* The start of an ARP packet. */
struct arp {
	__u16 hardware;
	__u16 protocol;
};

#define ARP_ETHERNET htons(1)
#define ARP_SIZE 8 /* the fixed part; the addresses' sizes depend on the hardware */

#define TYPE_IPV4 htons(0x0800)
#define TYPE_ARP htons(0x0806)
#define TYPE_8021Q htons(0x8100)
#define TYPE_IPV6 htons(0x86DD)
#define TYPE_8021AD htons(0x88A8)
#define TYPE_9100 htons(0x9100)

#define TYPE_ETHERNET htons(0x6558) /* Ethernet in GRE or Geneve */

#define NEXT_HOP_BY_HOP 0
#define NEXT_IPV4 4
#define NEXT_TCP 6
#define NEXT_UDP 17
#define NEXT_IPV6 41
#define NEXT_ROUTING 43
#define NEXT_FRAGMENT 44
#define NEXT_GRE 47
#define NEXT_AH 51
#define NEXT_ICMPV6 58
#define NEXT_OPTIONS 60
#define NEXT_SCTP 132

#define OPTION_JUMBO 194 /* RFC 2675 */

#define GRE_CHECKSUM htons(0x8000)
#define GRE_KEY htons(0x2000)
#define GRE_SEQUENCE htons(0x1000)

#define ROUTER_ALERT htons(0x9404) /* the option and its length, RFC 2113 */

#define FRAGMENT_OFFSET htons(0xFFF8)

#endif
