// SPDX-License-Identifier: Apache-2.0

package links

import (
	"encoding/binary"
	"math"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// changes is what messages of rtnetlink report.
type changes struct {
	links   []int    // the indexes of interfaces that appeared, changed or disappeared
	routes  bool     // a default route or a rule changed, or an address was removed: any default route may be gone
	objects []uint32 // the IDs of nexthop objects that changed
	unknown bool     // anything may have changed
}

// parseChanges returns what the messages report. The socket has dropped those of other routes: see dropOtherRoutes.
func parseChanges(messages []byte) (c changes) {
	const headerSize = unix.SizeofNlMsghdr
	for len(messages) >= headerSize {
		header := *(*unix.NlMsghdr)(unsafe.Pointer(unsafe.SliceData(messages)))
		if int(header.Len) < headerSize || int(header.Len) > len(messages) {
			return changes{unknown: true}
		}
		c.add(header.Type, messages[headerSize:header.Len])
		messages = messages[min(nlAlign(int(header.Len)), len(messages)):]
	}
	return c
}

func (c *changes) add(kind uint16, body []byte) {
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(body) < unix.SizeofIfInfomsg {
			c.unknown = true
			return
		}
		c.links = append(c.links, int(number(body[4:]))) // ifi_index of struct ifinfomsg
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		c.objects = append(c.objects, parseNexthop(body).id)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.RTM_NEWRULE, unix.RTM_DELRULE, unix.RTM_DELADDR:
		c.routes = true
	case unix.RTM_NEWADDR: // removes no route
	default:
		c.unknown = true
	}
}

// dropOtherRoutes makes the socket drop messages about routes that are not default routes. On routers these change so often that
// they would fill the socket's buffer, and other messages would be lost.
func dropOtherRoutes(socket int) error {
	const typeOffset, prefixOffset = 4, unix.SizeofNlMsghdr + 1 // nlmsg_type of struct nlmsghdr, rtm_dst_len of struct rtmsg
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: typeOffset, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: asLoaded(unix.RTM_NEWROUTE), SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: asLoaded(unix.RTM_DELROUTE), SkipTrue: 2},
		bpf.LoadAbsolute{Off: prefixOffset, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 1},
		bpf.RetConstant{Val: math.MaxUint32}, // the whole message
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return err
	}
	return unix.SetsockoptSockFprog(socket, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{
		Len:    uint16(len(program)),
		Filter: (*unix.SockFilter)(unsafe.Pointer(unsafe.SliceData(program))), // both are struct sock_filter of include/uapi/linux/filter.h
	})
}

// asLoaded returns what a BPF load of two bytes returns for a number in the machine's byte order: it takes them as big endian.
func asLoaded(n uint16) uint32 {
	return uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, n)))
}

// nlAlign is NLMSG_ALIGN of include/uapi/linux/netlink.h.
func nlAlign(n int) int {
	return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1)
}
