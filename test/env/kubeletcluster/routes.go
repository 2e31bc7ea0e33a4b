// SPDX-License-Identifier: Apache-2.0

package kubeletcluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
)

// Pods reach each other, and the API server reaches them, by routes from each node to each other one. A node's routes
// of its own end with its network namespace.

// connect makes the routes between a new node and all others.
func (c *Cluster) connect(n *Node) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, other := range c.nodes {
		if err := errors.Join(other.Do(n.routeHere), n.Do(other.routeHere)); err != nil {
			return err
		}
	}
	c.nodes = append(c.nodes, n)
	// kube-proxy changes where a packet to a Service goes, but the kernel has chosen the sender's address before: it
	// must be that of mgmt0, and not of eth0, which has the default route.
	services := func() error { return route(serviceCIDR, sandbox.FabricAddress) }
	return errors.Join(n.routeHere(), n.Do(services))
}

// disconnect undoes connect.
func (c *Cluster) disconnect(n *Node) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.nodes, n) {
		return nil
	}
	c.nodes = slices.DeleteFunc(c.nodes, func(other *Node) bool { return other == n })
	errs := []error{n.unrouteHere()}
	for _, other := range c.nodes {
		errs = append(errs, other.Do(n.unrouteHere))
	}
	return errors.Join(errs...)
}

// routeHere leads from the network namespace of the calling thread to the node's pods.
func (n *Node) routeHere() error {
	return route(podSubnet(n.machine.Index), n.machine.Address)
}

func (n *Node) unrouteHere() error {
	err := netlink.RouteDel(&netlink.Route{Dst: network(podSubnet(n.machine.Index))})
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove the route to the pods of %s: %w", n.Name, err)
	}
	return nil
}

func route(to, through string) error {
	gateway := netip.MustParseAddr(through)
	if err := netlink.RouteReplace(&netlink.Route{Dst: network(to), Gw: gateway.AsSlice()}); err != nil {
		return fmt.Errorf("route %s through %s: %w", to, through, err)
	}
	return nil
}

// network returns a prefix as netlink has it.
func network(cidr string) *net.IPNet {
	prefix := netip.MustParsePrefix(cidr)
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}
