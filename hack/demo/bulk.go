// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink"
	"k8s.io/apimachinery/pkg/types"

	api "github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/util/bulk"
)

const (
	bulkCounters  = "hack/demo/bulk.yaml"
	bulkInterface = "bulk0"
	bulkPeer      = "bulk1" // in the sender's namespace
	bulkSize      = 32 << 20
)

// flow is a transfer by TCP to one node, whose counter counts nothing else.
type flow struct {
	counter, node string
	mode          v1alpha1.AttachMode
	sent          api.Counts // as the sender's kernel knows the frames (TCP_INFO)
	packets       uint64     // that the node's kernel has received: less than the frames if they arrived as aggregates
}

// bulkNodes makes the interfaces for the transfers.
func (d *demo) bulkNodes() error {
	for _, n := range d.cluster.Nodes()[:2] {
		if err := n.AddPair(bulkInterface, bulkPeer); err != nil {
			return err
		}
	}
	return nil
}

// sendBulk sends through both interfaces.
func (d *demo) sendBulk(ctx context.Context) (flows []flow, err error) {
	for i, f := range []flow{{counter: "bulk-generic", mode: v1alpha1.AttachGeneric}, {counter: "bulk-native", mode: v1alpha1.AttachNative}} {
		n := d.cluster.Nodes()[i]
		f.node = n.Name
		if err := d.sendFlow(ctx, &f, n); err != nil {
			return nil, fmt.Errorf("send to %s by TCP: %w", n.Name, err)
		}
		flows = append(flows, f)
	}
	return flows, nil
}

// sendFlow leaves the connection open until the end of the demo, since its end would be more frames.
func (d *demo) sendFlow(ctx context.Context, f *flow, n *netnscluster.Node) error {
	address, err := bulk.Addresses(n.Client, n, bulkPeer, bulkInterface)
	if err != nil {
		return err
	}
	c, err := bulk.Connect(ctx, n.Client, n, address)
	if err != nil {
		return err
	}
	d.connections = append(d.connections, c)
	if err := c.Send(bulkSize); err != nil {
		return err
	}
	if f.sent, err = c.Sent(); err != nil {
		return err
	}
	return n.Do(func() error {
		l, err := netlink.LinkByName(bulkInterface)
		if err == nil {
			f.packets = l.Attrs().Statistics.RxPackets
		}
		return err
	})
}

// counted returns what the counter of the flow says.
func (f flow) counted(ctx context.Context, d *demo) (api.Counts, error) {
	x := &v1alpha1.XDPCounter{}
	if err := d.cluster.Client.Get(ctx, types.NamespacedName{Name: f.counter}, x); err != nil {
		return api.Counts{}, err
	}
	numbers := x.Status.Interfaces
	if numbers == nil || f.mode == v1alpha1.AttachGeneric && numbers.Generic != 1 || f.mode == v1alpha1.AttachNative && numbers.Native != 1 {
		return api.Counts{}, fmt.Errorf("%s is not attached in %s mode: %+v", f.counter, f.mode, numbers)
	}
	totals := v1alpha1.TotalsOfProtocols(x.Status.Protocols)
	return totals[api.IP(api.IPv4, 6)], nil
}
