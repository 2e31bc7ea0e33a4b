/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The ABI between counter.bpf.c and its readers in Go (api/traffic, agent/datapath).
 *
 * The counts of one attachment are one map value, an array of SLOTS counts for each possible CPU. Each CPU writes only
 * its own counts, so no locks are needed. Readers add up the counts of all CPUs. Any change here requires a new LAYOUT.
 * The layout is part of the path of the pins, so that a program never uses a map of another layout. Readers support the
 * older layouts (agent/datapath/layout.go).
 */
#ifndef XDP_OPERATOR_COUNTER_H
#define XDP_OPERATOR_COUNTER_H

/* A placeholder for the number of possible CPUs, which the loader replaces. No other instruction has this constant. */
enum machine { CPUS = 508 };

/* The counts of one slot on one CPU. */
struct count {
	__u64 packets; /* frames at the XDP hook */
	__u64 bytes;   /* length of these frames with the Ethernet header, without FCS */
};

#ifndef NEXT_LAYOUT

enum layout { LAYOUT = 1 };

/* The classes of frames. The values are those of traffic.Class. A test compares them through BTF. */
enum slot {
	SLOT_IPV4 = 0,	 /* + IP protocol number */
	SLOT_IPV6 = 256, /* + number of the upper-layer protocol, after the extension headers */
	SLOT_ARP = 512,
	SLOT_OTHER = 513,     /* any other EtherType, and 802.3 lengths */
	SLOT_MALFORMED = 514, /* too short for its header, or the header is inconsistent */
	SLOTS = 516,	      /* one is unused, so that CPUs do not share a cache line: 516 * 16 is a multiple of 64 */
};

#else /* for a build of the agent (tag nextlayout) that tests the change of the layout; it is not released */

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

/* Limits of the parser. */
enum depth {
	MAX_TAGS = 4,	    /* a fifth tag is not parsed: SLOT_OTHER */
	MAX_EXTENSIONS = 8, /* a ninth extension header: SLOT_MALFORMED */
};

#endif
