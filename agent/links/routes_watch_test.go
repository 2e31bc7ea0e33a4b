// SPDX-License-Identifier: Apache-2.0

package links

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

var _, defaultNet, _ = net.ParseCIDR("0.0.0.0/0")

// router is a namespace with the interfaces a and b, which have addresses, and a watcher of which the readings of routes are
// counted.
type router struct {
	*netns.Namespace

	watcher  *Watcher
	readings atomic.Int64
	a, b     netlink.Link
}

func newRouter(t *testing.T) *router {
	t.Helper()
	r := &router{Namespace: netns.New(t), watcher: newWatcher()}
	r.Veth(t, "a", "peer-a")
	r.Veth(t, "b", "peer-b")
	r.do(t, func() error {
		var errA, errB error
		r.a, errA = netlink.LinkByName("a")
		r.b, errB = netlink.LinkByName("b")
		return errors.Join(errA, errB, addressOf(r.a, "192.0.2.1/24", netlink.AddrAdd), addressOf(r.b, "198.51.100.1/24", netlink.AddrAdd))
	})
	read := r.watcher.routes.read
	r.watcher.routes.read = func() (defaultRoutes, error) {
		r.readings.Add(1)
		return read()
	}
	return r
}

// watch starts the watcher, and ends it with the test.
func (r *router) watch(t *testing.T, reopen func() (io.ReadCloser, error)) {
	t.Helper()
	var socket io.ReadCloser
	r.do(t, func() (err error) {
		socket, err = reopen()
		return err
	})
	ctx, cancel := context.WithCancel(t.Context())
	go r.watcher.watch(ctx, socket, reopen, time.Millisecond)
	expectSignal(t, r.watcher.Changed(), "at the start")
	t.Cleanup(func() {
		cancel()
		expectEnd(t, r.watcher.Changed())
	})
}

func (r *router) do(t *testing.T, change func() error) {
	t.Helper()
	r.Do(func() {
		if err := change(); err != nil {
			t.Fatal(err)
		}
	})
}

// expectPrimary waits until the watcher has these primary interfaces. After each signal it is asked once, as a pass does.
func (r *router) expectPrimary(t *testing.T, what string, want ...netlink.Link) {
	t.Helper()
	var indexes []int
	for _, l := range want {
		indexes = append(indexes, l.Attrs().Index)
	}
	slices.Sort(indexes)
	deadline := time.After(soon)
	for {
		got := primary(t, r.Namespace, r.watcher)
		if slices.Equal(got, indexes) {
			return
		}
		select {
		case <-r.watcher.Changed():
		case <-deadline:
			t.Fatalf("%s: the primary interfaces are %v, want %v", what, got, indexes)
		}
	}
}

func addressOf(l netlink.Link, cidr string, change func(netlink.Link, *netlink.Addr) error) error {
	address, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	return change(l, address)
}

// by is a default route by the interface, with a gateway in its network.
func by(l netlink.Link) *netlink.Route {
	gateway := net.IPv4(192, 0, 2, 254)
	if l.Attrs().Name == "b" {
		gateway = net.IPv4(198, 51, 100, 254)
	}
	return &netlink.Route{LinkIndex: l.Attrs().Index, Dst: defaultNet, Gw: gateway}
}

// The kernel reports few of the routes that it removes: each case is one that it does not, or another way by which the primary
// interfaces change.
func TestPrimaryFollowsEveryChange(t *testing.T) {
	for name, test := range map[string]struct {
		before func(t *testing.T, r *router) error // adds routes
		was    func(r *router) []netlink.Link      // primary then; nil: a
		change func(t *testing.T, r *router) error
		want   func(r *router) []netlink.Link // nil: none
	}{
		"a default route is added": {
			change: func(t *testing.T, r *router) error {
				route := by(r.b)
				route.Priority = 50
				return netlink.RouteAdd(route)
			},
			want: func(r *router) []netlink.Link { return []netlink.Link{r.a, r.b} },
		},
		"it is removed":            {change: func(t *testing.T, r *router) error { return netlink.RouteDel(by(r.a)) }},
		"its interface goes down":  {change: func(t *testing.T, r *router) error { return netlink.LinkSetDown(r.a) }},
		"its interface is deleted": {change: func(t *testing.T, r *router) error { return netlink.LinkDel(r.a) }},
		"its interface leaves the namespace": {
			change: func(t *testing.T, r *router) error { return netlink.LinkSetNsFd(r.a, int(netns.New(t).File().Fd())) },
		},
		"the last address of its interface is removed": {
			change: func(t *testing.T, r *router) error { return addressOf(r.a, "192.0.2.1/24", netlink.AddrDel) },
		},
		"its source address is removed from another interface": {
			before: func(t *testing.T, r *router) error {
				route := by(r.a)
				route.Src = net.IPv4(198, 51, 100, 1)
				return netlink.RouteAdd(route)
			},
			change: func(t *testing.T, r *router) error { return addressOf(r.b, "198.51.100.1/24", netlink.AddrDel) },
		},
		"its nexthop object is removed": {
			before: func(t *testing.T, r *router) error {
				object(t, 5, oif(r.a), gateway(192, 0, 2, 254))
				routeBy(t, 5)
				return nil
			},
			change: func(t *testing.T, r *router) error { removeObject(t, 5); return nil },
		},
		"its nexthop object is replaced": {
			before: func(t *testing.T, r *router) error {
				object(t, 5, oif(r.a), gateway(192, 0, 2, 254))
				routeBy(t, 5)
				return nil
			},
			change: func(t *testing.T, r *router) error {
				replaceObject(t, 5, oif(r.b), gateway(198, 51, 100, 254))
				return nil
			},
			want: func(r *router) []netlink.Link { return []netlink.Link{r.b} },
		},
		"a member of its group is replaced": {
			before: func(t *testing.T, r *router) error {
				object(t, 5, oif(r.a), gateway(192, 0, 2, 254))
				object(t, 7, nl.NewRtAttr(unix.NHA_GROUP, groupOf(5)))
				routeBy(t, 7)
				return nil
			},
			change: func(t *testing.T, r *router) error {
				replaceObject(t, 5, oif(r.b), gateway(198, 51, 100, 254))
				return nil
			},
			want: func(r *router) []netlink.Link { return []netlink.Link{r.b} },
		},
		"its group gets another member": {
			before: func(t *testing.T, r *router) error {
				object(t, 5, oif(r.a), gateway(192, 0, 2, 254))
				object(t, 6, oif(r.b), gateway(198, 51, 100, 254))
				object(t, 7, nl.NewRtAttr(unix.NHA_GROUP, groupOf(5)))
				routeBy(t, 7)
				return nil
			},
			change: func(t *testing.T, r *router) error {
				replaceObject(t, 7, nl.NewRtAttr(unix.NHA_GROUP, groupOf(5, 6)))
				return nil
			},
			want: func(r *router) []netlink.Link { return []netlink.Link{r.a, r.b} },
		},
		"a rule without conditions is added": {
			before: func(t *testing.T, r *router) error {
				route := by(r.b)
				route.Table = 100
				return errors.Join(netlink.RouteAdd(by(r.a)), netlink.RouteAdd(route))
			},
			change: func(t *testing.T, r *router) error { return netlink.RuleAdd(ruleOf(100)) },
			want:   func(r *router) []netlink.Link { return []netlink.Link{r.a, r.b} },
		},
		"a rule without conditions is removed": {
			before: func(t *testing.T, r *router) error {
				route := by(r.a)
				route.Table = 100
				return errors.Join(netlink.RouteAdd(route), netlink.RuleAdd(ruleOf(100)))
			},
			change: func(t *testing.T, r *router) error { return netlink.RuleDel(ruleOf(100)) },
		},
		"the table of a rule gets a default route": {
			before: func(t *testing.T, r *router) error {
				return errors.Join(netlink.RouteAdd(by(r.a)), netlink.RuleAdd(ruleOf(100)))
			},
			change: func(t *testing.T, r *router) error {
				route := by(r.b)
				route.Table = 100
				return netlink.RouteAdd(route)
			},
			want: func(r *router) []netlink.Link { return []netlink.Link{r.a, r.b} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRouter(t)
			if strings.Contains(name, "object") || strings.Contains(name, "group") {
				r.do(t, reportObjectsOnly)
			}
			if test.before == nil {
				test.before = func(t *testing.T, r *router) error { return netlink.RouteAdd(by(r.a)) }
			}
			r.do(t, func() error { return test.before(t, r) })
			r.watch(t, subscribe)
			r.expectPrimary(t, "before", r.a)
			settle(r.watcher.Changed())
			r.do(t, func() error { return test.change(t, r) })
			var want []netlink.Link
			if test.want != nil {
				want = test.want(r)
			}
			r.expectPrimary(t, "afterwards", want...)
		})
	}
}

// reportObjectsOnly makes the kernel report a change of a nexthop object only as such, and not as a change of its routes too.
func reportObjectsOnly() error {
	return os.WriteFile("/proc/sys/net/ipv4/nexthop_compat_mode", []byte("0"), 0)
}

func TestPrimaryIsNotReadAgainAfterOtherChanges(t *testing.T) {
	r := newRouter(t)
	r.do(t, func() error {
		object(t, 5, oif(r.a), gateway(192, 0, 2, 254))
		routeBy(t, 5)
		return nil
	})
	r.watch(t, subscribe)
	settle(r.watcher.Changed())
	r.expectPrimary(t, "before", r.a)
	before := r.readings.Load()
	r.do(t, func() error {
		_, somewhere, _ := net.ParseCIDR("203.0.113.0/24")
		object(t, 6, oif(r.b), gateway(198, 51, 100, 254))
		return errors.Join(
			netlink.RouteAdd(&netlink.Route{LinkIndex: r.a.Attrs().Index, Dst: somewhere, Scope: netlink.SCOPE_LINK}),
			addressOf(r.a, "192.0.2.2/24", netlink.AddrAdd),
			netlink.LinkSetMTU(r.b, 1400),
		)
	})
	expectSignal(t, r.watcher.Changed(), "another interface has changed")
	settle(r.watcher.Changed())
	r.expectPrimary(t, "afterwards", r.a)
	if got := r.readings.Load() - before; got != 0 {
		t.Errorf("the routes were read %d times", got)
	}
}

func TestPrimaryAfterLostMessages(t *testing.T) {
	r := newRouter(t)
	r.do(t, func() error { return netlink.RouteAdd(by(r.a)) })
	socket := newFailing()
	r.watch(t, func() (io.ReadCloser, error) { return socket, nil })
	r.expectPrimary(t, "before", r.a)
	r.do(t, func() error { return netlink.RouteReplace(by(r.b)) }) // which the socket does not receive
	socket.errs <- unix.ENOBUFS
	r.expectPrimary(t, "afterwards", r.b)
}

// smallSocket is subscribe with the smallest buffer, about one message: the second of a burst does not fit.
func smallSocket() (io.ReadCloser, error) {
	socket, err := subscribe()
	if err != nil {
		return nil, err
	}
	fd := int(socket.(*os.File).Fd()) // makes it blocking
	return socket, errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0), unix.SetNonblock(fd, true))
}

func TestPrimaryAfterTheSocketBroke(t *testing.T) {
	r := newRouter(t)
	r.do(t, func() error { return netlink.RouteAdd(by(r.a)) })
	sockets := make(chan io.ReadCloser, 1)
	reopen := func() (io.ReadCloser, error) {
		select {
		case s := <-sockets:
			return s, nil
		default:
			return nil, unix.EMFILE
		}
	}
	broken := newFailing()
	sockets <- broken
	r.watch(t, reopen)
	r.expectPrimary(t, "before", r.a)

	broken.errs <- unix.EBADF
	<-broken.closed
	r.do(t, func() error { return netlink.LinkSetDown(r.a) }) // which no socket receives
	r.expectPrimary(t, "without a socket")
	r.do(t, func() error {
		errs := errors.Join(netlink.LinkSetUp(r.a), netlink.RouteAdd(by(r.a)))
		socket, err := subscribe()
		sockets <- socket
		return errors.Join(errs, err)
	})
	expectSignal(t, r.watcher.Changed(), "once opened again")
	r.expectPrimary(t, "afterwards", r.a)
}

// failing is a socket that receives nothing but these errors.
type failing struct {
	*script

	errs chan error
}

func newFailing() *failing { return &failing{newScript(), make(chan error)} }

func (f *failing) Read([]byte) (int, error) {
	select {
	case err := <-f.errs:
		return 0, err
	case <-f.closed:
		return 0, os.ErrClosed
	}
}

func TestALargeRoutingTableIsReadOnce(t *testing.T) {
	r := newRouter(t)
	r.do(t, func() error { return errors.Join(netlink.RouteAdd(by(r.a)), addRoutes(r.a, 100_000)) })
	r.watch(t, smallSocket)
	for range 10 {
		r.expectPrimary(t, "in each pass", r.a)
		r.do(t, func() error { _, err := r.watcher.List(); return err })
	}
	if got := r.readings.Load(); got != 1 {
		t.Errorf("the routes were read %d times", got)
	}
	r.do(t, func() error { return addRoutes(r.b, 1000) }) // replaces some of them
	settle(r.watcher.Changed())
	r.expectPrimary(t, "afterwards", r.a)
	if got := r.readings.Load(); got != 1 || r.watcher.Resyncs() != 0 {
		t.Errorf("after changes of other routes the routes were read %d times, messages were lost %d times", got, r.watcher.Resyncs())
	}
}

// addRoutes adds or replaces n routes of 32 bits to 10.0.0.0 and the following addresses.
func addRoutes(l netlink.Link, n int) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var batch []byte
	for i := range n {
		request := nl.NewNetlinkRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
		request.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{
			Family: unix.AF_INET, Dst_len: 32, Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_STATIC, Scope: unix.RT_SCOPE_LINK, Type: unix.RTN_UNICAST,
		}})
		request.AddData(nl.NewRtAttr(unix.RTA_DST, binary.BigEndian.AppendUint32(nil, 10<<24+uint32(i))))
		request.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(l.Attrs().Index))))
		if batch = append(batch, request.Serialize()...); len(batch) > 32<<10 || i == n-1 {
			if err := unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
				return err
			}
			batch = nil
		}
	}
	return nil
}

// BenchmarkPrimary shows what a pass pays for the routes.
func BenchmarkPrimary(b *testing.B) {
	n := netns.New(b)
	n.Veth(b, "a", "peer")
	n.Do(func() {
		l, err := netlink.LinkByName("a")
		if err != nil {
			b.Fatal(err)
		}
		if err := addRoutes(l, 100_000); err != nil {
			b.Fatal(err)
		}
		kept := newWatcher()
		kept.routes.setWatched(true)
		for name, get := range map[string]func() (map[int]bool, error){"read": Links{}.Primary, "kept": kept.Primary} {
			b.Run(name, func(b *testing.B) {
				n.Do(func() {
					for b.Loop() {
						if _, err := get(); err != nil {
							b.Fatal(err)
						}
					}
				})
			})
		}
	})
}

func ruleOf(table int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Table, r.Priority = netlink.FAMILY_V4, table, 1000
	return r
}

// groupOf returns the value of NHA_GROUP.
func groupOf(members ...uint32) (list []byte) {
	for _, id := range members {
		list = append(binary.NativeEndian.AppendUint32(list, id), 0, 0, 0, 0)
	}
	return list
}
