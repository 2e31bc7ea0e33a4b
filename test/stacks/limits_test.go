// SPDX-License-Identifier: Apache-2.0

package stacks

import (
	"errors"
	"testing"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
)

// setTransmitQueues is "ethtool -L NAME tx N".
func setTransmitQueues(name string, n uint32) error {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer tool.Close()
	channels, err := tool.GetChannels(name)
	if err != nil {
		return err
	}
	channels.TxCount = n
	_, err = tool.SetChannels(name, channels)
	return err
}

// The table "What a program in native mode forbids" of docs/interfaces.md.
func TestWhatNativeModeForbidsOnVeth(t *testing.T) {
	for name, change := range map[string]func(peer netlink.Link) error{
		"a transmit queue of the peer without a receive queue here": func(peer netlink.Link) error { return setTransmitQueues(peer.Attrs().Name, 2) },
		"an MTU of the peer that needs more than one page":          func(peer netlink.Link) error { return netlink.LinkSetMTU(peer, 3507) },
	} {
		try := func(mode plan.Mode) (result error) {
			n := newNode(t)
			var peer netlink.Link
			n.Do(func() {
				pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "v1", PeerNumTxQueues: 2, PeerNumRxQueues: 2}
				pair.Name, pair.NumTxQueues, pair.NumRxQueues = "v0", 1, 1
				err := netlink.LinkAdd(pair)
				if err == nil {
					err = setTransmitQueues("v1", 1) // at first all are in use
				}
				if errors.Is(err, unix.EOPNOTSUPP) { // before Linux 5.14
					pair.PeerNumTxQueues, pair.PeerNumRxQueues = 1, 1
					err = errors.Join(netlink.LinkDel(pair), netlink.LinkAdd(pair))
				}
				if err == nil {
					peer, err = netlink.LinkByName("v1")
				}
				if err := errors.Join(err, up("v0", "v1")); err != nil {
					t.Fatal(err)
				}
			})
			if mode != "" {
				n.expect(t, plan.Selection{Counter: "c", Names: []string{"v0"}, Mode: mode}, "v0")
			}
			n.Do(func() { result = change(peer) })
			return result
		}
		t.Run(name, func(t *testing.T) {
			without := try("")
			if errors.Is(without, unix.EOPNOTSUPP) {
				t.Log("this kernel does not allow the change at all")
				return
			}
			if without != nil {
				t.Errorf("without a program: %v", without)
			}
			if err := try(plan.Native); !errors.Is(err, unix.EINVAL) {
				t.Errorf("in native mode: %v, want %v", err, unix.EINVAL)
			}
			if err := try(plan.Generic); err != nil {
				t.Errorf("in generic mode: %v", err)
			}
		})
	}
}
