// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"slices"
)

// A Cost is what a program in each mode takes from the traffic of a driver's interfaces, and the mode that Auto tries first.
type Cost struct {
	Drivers []string // by ethtool; for virtual interfaces the kind by rtnetlink
	Native  string   // what native mode takes away, a clause
	Generic string   // what generic mode takes away, a clause
	Source  string   // our measurement, or the files of the kernel's source
	First   Mode     // Native or Generic
}

const (
	noGRO = "the kernel does no GRO, because frames arrive one at a time"
)

// tapDrivers are the driver of tun and tap interfaces, and their kind as package netlink has it.
var tapDrivers = []string{"tun", "tuntap"}

// Costs has the drivers that are known, those with generic mode first. The document interfaces.md shows it.
var Costs = []Cost{
	{
		Drivers: []string{"veth"}, First: Generic,
		Native:  "the other end loses segmentation offload, so large segments are cut into frames: more than half of bulk TCP",
		Generic: "little where large segments arrive; a quarter of bulk TCP where single frames do (native: a fifth)",
		Source:  "`make bench`; `drivers/net/veth.c`, veth_xdp_set",
	}, {
		Drivers: tapDrivers, First: Generic,
		Native:  "nothing, but large segments come to the program as one packet",
		Generic: noGRO + ", except where large segments arrive",
		Source:  "`drivers/net/tun.c`, tun_build_skb and tun_xdp_one",
	}, {
		Drivers: []string{"virtio_net"}, First: Native,
		Native:  "the host hands over single frames: 63 % of bulk TCP",
		Generic: "the same, and " + noGRO + ": 76 % of bulk TCP",
		Source:  "`make bench-guest`; `drivers/net/virtio_net.c`, virtnet_xdp_set; `net/core/dev.c`, dev_disable_gro_hw",
	}, {
		Drivers: []string{"hv_netvsc"}, First: Native,
		Native:  "is refused while LRO is on; copies each frame into a page",
		Generic: "LRO is switched off, and " + noGRO,
		Source:  "`drivers/net/hyperv/netvsc_bpf.c`, netvsc_xdp_set",
	}, {
		Drivers: []string{"vmxnet3"}, First: Native,
		Native:  "LRO is switched off, and the device is reset",
		Generic: "LRO is switched off, and " + noGRO,
		Source:  "`drivers/net/vmxnet3/vmxnet3_xdp.c`, vmxnet3_xdp_set",
	}, {
		Drivers: []string{"vif"}, First: Native, // xen-netfront
		Native:  "an MTU above 3,840 bytes is refused; the device is reconfigured",
		Generic: noGRO + ", except where large segments arrive",
		Source:  "`drivers/net/xen-netfront.c`, xennet_xdp_set",
	}, {
		Drivers: []string{"bridge", "dummy", "ipvlan", "macvlan", "netkit", "vlan", "vxlan"}, First: Native,
		Native:  "is refused: there is none",
		Generic: "little: large segments are copied into one buffer",
		Source:  "`net/core/dev.c`, dev_xdp_attach and netif_receive_generic_xdp",
	}, {
		Drivers: []string{"bond", "team"}, First: Native,
		Native:  "is attached to the members, with what it takes there",
		Generic: "is attached to the members, with what it takes there",
		Source:  "[stacked interfaces](#stacked-interfaces)",
	}, {
		Drivers: []string{
			"atlantic", "bnxt_en", "ena", "fec", "fsl_dpaa2_eth", "fsl_enetc", "gve", "i40e", "ice", "igb", "igc", "ixgbe", "ixgbevf", "mana",
			"mlx4_en", "mlx5_core", "mvneta", "mvpp2", "nfp", "qede", "sfc", "st_gmac", "tsnep",
		}, First: Native,
		Native:  "LRO and hardware GRO; GRO after the program stays. Many drivers reset the NIC or its queues",
		Generic: "LRO and hardware GRO, and " + noGRO,
		Source:  "`include/linux/netdevice.h`, netif_elide_gro; `net/core/dev.c`, generic_xdp_install",
	},
}

// CostOf returns the cost of an interface. That of a driver that is not known has only First, which is Native: where single frames
// arrive, as they do from a wire, native mode costs less.
func CostOf(i Interface) Cost {
	driver := i.driver()
	for _, c := range Costs {
		if slices.Contains(c.Drivers, driver) {
			return c
		}
	}
	return Cost{First: Native}
}

// FirstOf returns the value of Attachment.First for Auto: Generic, or "" if it is native mode.
func FirstOf(i Interface) Mode {
	if CostOf(i).First == Generic {
		return Generic
	}
	return ""
}

// driver returns the kind of a virtual interface, which is the name of its driver, and the driver of another one. Only the
// kind is certain: the driver is read by the interface's name, which may just be changed.
func (i Interface) driver() string { return cmp.Or(i.Kind, i.Driver) }

// SegmentsInNative reports whether the interface's driver passes large segments, which are several frames on the wire, to a
// program for native mode, which counts each as one packet. Other drivers cut them, or receive single frames.
func SegmentsInNative(i Interface) bool { return slices.Contains(tapDrivers, i.driver()) }
