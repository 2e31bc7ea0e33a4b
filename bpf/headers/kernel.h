/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What wire.h needs of the kernel's internal structures. Only the members that are read are declared. The loader
 * replaces their offsets, the size of the structure and the number of its type by those of the running kernel,
 * from its BTF.
 */
#ifndef XDP_OPERATOR_KERNEL_H
#define XDP_OPERATOR_KERNEL_H

#define RELOCATED __attribute__((preserve_access_index))

/* include/net/xdp.h */
struct xdp_buff {
	void *data_hard_start;
	__u32 frame_sz;
} RELOCATED;

/* include/linux/skbuff.h */
struct skb_shared_info {
	__u16 gso_size;
	__u16 gso_segs;
	__u32 gso_type;
} RELOCATED;

/* include/linux/skbuff.h, an enumeration without a name. Its values are the same from Linux 5.10 on. */
#define GSO_GRE (1 << 6)
#define GSO_GRE_CSUM (1 << 7)
#define GSO_IPXIP4 (1 << 8)
#define GSO_IPXIP6 (1 << 9)
#define GSO_UDP_TUNNEL (1 << 10)
#define GSO_UDP_TUNNEL_CSUM (1 << 11)

/* include/linux/skbuff.h, SKB_DATA_ALIGN: SMP_CACHE_BYTES is 64 on amd64 and arm64. */
#define ALIGNED(size) (((size) + 63) & ~63ULL)

/* Of the running kernel (include/uapi/linux/bpf.h and libbpf's bpf_core_read.h). */
#define SHARED_INFO_SIZE __builtin_preserve_type_info(*(struct skb_shared_info *)0, 1)
#define SHARED_INFO_TYPE __builtin_btf_type_id(*(struct skb_shared_info *)0, 1)

static long (*bpf_probe_read_kernel)(void *to, __u32 size, const void *from) = (void *)113;

#define KFUNC __attribute__((section(".ksyms")))

extern void *bpf_cast_to_kern_ctx(void *ctx) KFUNC;
extern void *bpf_rdonly_cast(const void *at, __u32 type) KFUNC;

#endif
