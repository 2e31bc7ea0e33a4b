/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ABI between counter.bpf.c and its readers in Go (api/traffic, agent/datapath).
 *
 * The counts of one attachment are one map value: for each possible CPU in turn SLOTS counts. A CPU writes its
 * own counts only, so nothing is locked; a reader adds up over the CPUs. Whatever changes here is a new LAYOUT:
 * it is part of the pins' path, so that a program never counts into a table that it misreads. Readers go on knowing the
 * older ones (agent/datapath/layout.go).
 */
#ifndef XDP_OPERATOR_COUNTER_H
#define XDP_OPERATOR_COUNTER_H

/* Stands for the number of possible CPUs, which the loader puts in its place. No other instruction has it. */
enum machine { CPUS = 508 };

/* Of one slot on one CPU. */
struct count {
	__u64 packets; /* frames at the XDP hook */
	__u64 bytes;   /* of those frames, from the Ethernet header, without FCS */
};

#ifndef NEXT_LAYOUT

enum layout { LAYOUT = 1 };

/* What is counted apart. The values are those of traffic.Class; a test compares them by BTF. */
enum slot {
	SLOT_IPV4 = 0,	 /* + IP protocol number */
	SLOT_IPV6 = 256, /* + number of the upper-layer protocol, after the extension headers */
	SLOT_ARP = 512,
	SLOT_OTHER = 513,     /* any other ethertype, 802.3 lengths too */
	SLOT_MALFORMED = 514, /* too short for the header that its type announces, or a header that contradicts it */
	SLOTS = 516,	      /* one unused, so that no two CPUs share a cache line: 516 * 16 is a multiple of 64 */
};

#else /* for a build of the agent (tag nextlayout) that tests how one layout follows another; released nowhere */

enum layout { LAYOUT = 2 };

enum slot {
	SLOT_MALFORMED = 0,
	SLOT_OTHER = 1,
	SLOT_ARP = 2,
	SLOT_IPV6 = 8,
	SLOT_IPV4 = 264,
	SLOTS = 520,
};

#endif

/* How deep a frame is parsed. */
enum depth {
	MAX_TAGS = 4,	    /* a fifth tag is an ethertype that is not parsed: SLOT_OTHER */
	MAX_EXTENSIONS = 8, /* a ninth extension header: SLOT_MALFORMED */
};

#endif
