// SPDX-License-Identifier: Apache-2.0

package links

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// primaries returns the indexes of the interfaces of default routes, IPv4 or IPv6: those of all next hops, whatever the metric.
// It reads the main table and the tables of rules without conditions, which apply to all packets of the node. Tables of rules
// with a source, a mark or a VRF belong to pods, tunnels and tenants.
func primaries() (map[int]bool, error) {
	indexes := map[int]bool{}
	objects := map[uint32]bool{} // nexthop objects of routes that do not list the interfaces
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		tables, err := tables(family)
		if err != nil {
			return indexes, fmt.Errorf("rules: %w", err)
		}
		err = dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, &nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(family)}}, func(body []byte) {
			r := parseRoute(body)
			if !r.isDefault || !slices.Contains(tables, r.table) {
				return
			}
			for _, index := range r.leaving {
				indexes[index] = true
			}
			if len(r.leaving) == 0 && r.object != 0 {
				objects[r.object] = true
			}
		})
		// A kernel without IPv6 has no IPv6 routes.
		if err != nil && !absent(err) {
			return indexes, err
		}
	}
	if len(objects) == 0 {
		return indexes, nil
	}
	return indexes, nexthops(objects, indexes)
}

// absent reports whether the kernel was built without the feature.
func absent(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// tables returns the main table, and the tables of rules that apply to every packet and to default routes.
func tables(family int) ([]int, error) {
	tables := []int{unix.RT_TABLE_MAIN}
	rules, err := netlink.RuleList(family)
	if err != nil && !absent(err) {
		return nil, err
	}
	for _, r := range rules {
		plain := netlink.NewRule()
		plain.Family, plain.Priority, plain.Table, plain.Protocol, plain.Flow = r.Family, r.Priority, r.Table, r.Protocol, r.Flow
		if r.Table != 0 && reflect.DeepEqual(r, *plain) {
			tables = append(tables, r.Table)
		}
	}
	return tables, nil
}

// dump requests a whole table and calls each with the body of each message. The body is valid only during the call.
func dump(request, answer int, header nl.NetlinkRequestData, each func(body []byte)) error {
	r := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
	r.AddData(header)
	return r.ExecuteIter(unix.NETLINK_ROUTE, uint16(answer), func(body []byte) bool {
		each(body)
		return true
	})
}

// rtaNexthopID is RTA_NH_ID of include/uapi/linux/rtnetlink.h.
const rtaNexthopID = 30

// route has the needed fields of a struct rtmsg (include/uapi/linux/rtnetlink.h) and its attributes.
type route struct {
	isDefault bool // of type unicast: blackhole and unreachable routes do not count, although IPv6 gives them the interface lo
	table     int
	leaving   []int  // the indexes of the interfaces of all next hops
	object    uint32 // the ID of a nexthop object; with net.ipv4.nexthop_compat_mode=0 there is nothing else
}

func parseRoute(body []byte) (r route) {
	if len(body) < unix.SizeofRtMsg {
		return r
	}
	msg := nl.DeserializeRtMsg(body)
	r.isDefault = msg.Type == unix.RTN_UNICAST && msg.Dst_len == 0 && msg.Src_len == 0 && msg.Flags&unix.RTM_F_CLONED == 0
	r.table = int(msg.Table)
	attributes, err := nl.ParseRouteAttr(body[unix.SizeofRtMsg:])
	if err != nil {
		return route{}
	}
	for _, a := range attributes {
		switch {
		case a.Attr.Type == unix.RTA_MULTIPATH:
			r.leaving = append(r.leaving, hops(a.Value)...)
		case len(a.Value) < 4:
		case a.Attr.Type == unix.RTA_TABLE:
			r.table = int(number(a.Value))
		case a.Attr.Type == unix.RTA_OIF:
			r.leaving = append(r.leaving, int(number(a.Value)))
		case a.Attr.Type == rtaNexthopID:
			r.object = number(a.Value)
		}
	}
	return r
}

// hops returns the interfaces of a list of struct rtnexthop: length, flags, weight, index.
func hops(list []byte) (indexes []int) {
	for len(list) >= unix.SizeofRtNexthop {
		length := int(binary.NativeEndian.Uint16(list))
		if length < unix.SizeofRtNexthop {
			return indexes
		}
		indexes = append(indexes, int(number(list[4:])))
		list = list[min(nlAlign(length), len(list)):]
	}
	return indexes
}

// nexthops adds the interfaces of these nexthop objects to the indexes, also those of the members of groups.
func nexthops(objects map[uint32]bool, indexes map[int]bool) error {
	const (
		header = 8 // struct nhmsg of include/uapi/linux/nexthop.h
		member = 8 // struct nexthop_grp, which begins with the ID
	)
	interfaces, groups := map[uint32]int{}, map[uint32][]uint32{}
	err := dump(unix.RTM_GETNEXTHOP, unix.RTM_NEWNEXTHOP, zeros(header), func(body []byte) {
		if len(body) < header {
			return
		}
		attributes, err := nl.ParseRouteAttr(body[header:])
		if err != nil {
			return
		}
		var id uint32
		for _, a := range attributes { // the ID is the first
			switch {
			case a.Attr.Type == unix.NHA_GROUP:
				for list := a.Value; len(list) >= member; list = list[member:] {
					groups[id] = append(groups[id], number(list))
				}
			case len(a.Value) < 4:
			case a.Attr.Type == unix.NHA_ID:
				id = number(a.Value)
			case a.Attr.Type == unix.NHA_OIF:
				interfaces[id] = int(number(a.Value))
			}
		}
	})
	if err != nil {
		return fmt.Errorf("nexthop objects: %w", err)
	}
	for id := range objects {
		for _, member := range append(groups[id], id) {
			if index, ok := interfaces[member]; ok {
				indexes[index] = true
			}
		}
	}
	return nil
}

func number(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }

// zeros is a request header of zeros, which requests everything.
type zeros int

func (z zeros) Len() int          { return int(z) }
func (z zeros) Serialize() []byte { return make([]byte, z) }
