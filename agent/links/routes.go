// SPDX-License-Identifier: Apache-2.0

package links

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// defaultRoutes has what is needed of the default routes of a network namespace.
type defaultRoutes struct {
	interfaces map[int]bool    // the indexes of the interfaces of all next hops
	objects    map[uint32]bool // the IDs of the nexthop objects that the routes use, and of the members of groups
}

// readDefaultRoutes returns the default routes, IPv4 and IPv6, whatever their metric. It reads the main table and the tables of
// rules without conditions, which apply to all packets of the node. Tables of rules with a source, a mark or a VRF belong to
// pods, tunnels and tenants.
//
// The kernel lists whole tables. With NETLINK_GET_STRICT_CHK it selects by table, type and interface, but not by prefix
// (ip_valid_fib_dump_req of net/ipv4/fib_frontend.c). RTM_F_FIB_MATCH returns the best route only, but all metrics are needed.
func readDefaultRoutes() (defaultRoutes, error) {
	routes, err := undisturbed(dumpDefaultRoutes)
	if err != nil {
		return defaultRoutes{}, fmt.Errorf("list default routes: %w", err)
	}
	return routes, nil
}

// dumpDefaultRoutes reads them once. With netlink.ErrDumpInterrupted it returns what it has read.
func dumpDefaultRoutes() (defaultRoutes, error) {
	routes := defaultRoutes{map[int]bool{}, map[uint32]bool{}}
	var interrupted error
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		tables, err := tables(family)
		if interrupted = errors.Join(interrupted, err); failed(err) {
			return routes, fmt.Errorf("rules: %w", err)
		}
		err = dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, &nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(family)}}, func(body []byte) {
			r := parseRoute(body)
			if !r.isDefault || !slices.Contains(tables, r.table) {
				return
			}
			for _, index := range r.leaving {
				routes.interfaces[index] = true
			}
			if r.object != 0 {
				routes.objects[r.object] = true
			}
		})
		if interrupted = errors.Join(interrupted, err); failed(err) {
			return routes, err
		}
	}
	if len(routes.objects) > 0 {
		interrupted = errors.Join(interrupted, routes.addNexthops())
	}
	return routes, interrupted
}

// failed reports whether the error is another one than that of an interrupted dump.
func failed(err error) bool { return err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) }

// present returns the error, but nil if the kernel was built without the feature: without IPv6 it has no IPv6 routes.
func present(err error) error {
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// tables returns the main table, and the tables of rules that apply to every packet and to default routes.
func tables(family int) ([]int, error) {
	tables := []int{unix.RT_TABLE_MAIN}
	rules, err := netlink.RuleList(family)
	for _, r := range rules {
		plain := netlink.NewRule()
		plain.Family, plain.Priority, plain.Table, plain.Protocol, plain.Flow = r.Family, r.Priority, r.Table, r.Protocol, r.Flow
		if r.Table != 0 && reflect.DeepEqual(r, *plain) {
			tables = append(tables, r.Table)
		}
	}
	return tables, present(err)
}

// dump requests a whole table and calls each with the body of each message. The body is valid only during the call. A table that
// the kernel does not have is empty.
func dump(request, answer int, header nl.NetlinkRequestData, each func(body []byte)) error {
	r := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
	r.AddData(header)
	return present(r.ExecuteIter(unix.NETLINK_ROUTE, uint16(answer), func(body []byte) bool {
		each(body)
		return true
	}))
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
	if msg.Type != unix.RTN_UNICAST || msg.Dst_len != 0 || msg.Src_len != 0 || msg.Flags&unix.RTM_F_CLONED != 0 {
		return r // most routes of a large table
	}
	r.isDefault = true
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

// addNexthops adds the interfaces of the nexthop objects of the routes, and the members of groups with theirs.
func (r defaultRoutes) addNexthops() error {
	all := map[uint32]nexthop{}
	err := dump(unix.RTM_GETNEXTHOP, unix.RTM_NEWNEXTHOP, zeros(sizeofNhmsg), func(body []byte) {
		n := parseNexthop(body)
		all[n.id] = n
	})
	if failed(err) {
		return fmt.Errorf("nexthop objects: %w", err)
	}
	for _, id := range slices.Collect(maps.Keys(r.objects)) {
		for _, member := range append(all[id].members, id) { // a group has no groups as members
			r.objects[member] = true
			if n := all[member]; n.index != 0 {
				r.interfaces[n.index] = true
			}
		}
	}
	return err
}

// nexthop has the needed attributes of a nexthop object (include/uapi/linux/nexthop.h).
type nexthop struct {
	id      uint32
	index   int      // the interface, 0 if there is none
	members []uint32 // the IDs of the objects of a group
}

const (
	sizeofNhmsg      = 8 // struct nhmsg
	sizeofNexthopGrp = 8 // struct nexthop_grp, which begins with the ID
)

func parseNexthop(body []byte) (n nexthop) {
	if len(body) < sizeofNhmsg {
		return n
	}
	attributes, err := nl.ParseRouteAttr(body[sizeofNhmsg:])
	if err != nil {
		return n
	}
	for _, a := range attributes {
		switch {
		case a.Attr.Type == unix.NHA_GROUP:
			for list := a.Value; len(list) >= sizeofNexthopGrp; list = list[sizeofNexthopGrp:] {
				n.members = append(n.members, number(list))
			}
		case len(a.Value) < 4:
		case a.Attr.Type == unix.NHA_ID:
			n.id = number(a.Value)
		case a.Attr.Type == unix.NHA_OIF:
			n.index = int(number(a.Value))
		}
	}
	return n
}

func number(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }

// zeros is a request header of zeros, which requests everything.
type zeros int

func (z zeros) Len() int          { return int(z) }
func (z zeros) Serialize() []byte { return make([]byte, z) }
