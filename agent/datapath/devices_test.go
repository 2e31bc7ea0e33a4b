// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf/link"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/kernels/report"
)

// add makes an interface, sets it up and returns its index. ok is false if this kernel has no such interfaces; those of
// test/kernels have all that are asked for.
func (h *host) add(t *testing.T, l netlink.Link) (index int, ok bool) {
	t.Helper()
	h.net.Do(func() {
		err := netlink.LinkAdd(l)
		if errors.Is(err, unix.EOPNOTSUPP) && os.Getenv(report.Guest) == "" {
			t.Logf("this kernel has no %s", l.Type())
			return
		}
		if err != nil {
			t.Fatalf("add %s: %v", l.Type(), err)
		}
		ok = true
	})
	if !ok {
		return 0, false
	}
	return h.net.Up(t, l.Attrs().Name), true
}

// named returns the attributes of an interface to be made.
func named(name string) netlink.LinkAttrs {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	return attrs
}

// on returns those of one that is made upon another.
func on(index int, name string) netlink.LinkAttrs {
	attrs := named(name)
	attrs.ParentIndex = index
	return attrs
}

// enslave makes the interface a member of a bond or a port of a bridge.
func (h *host) enslave(t *testing.T, index, master int) {
	t.Helper()
	h.net.Do(func() {
		l, err := netlink.LinkByIndex(index)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(netlink.LinkSetDown(l), netlink.LinkSetMasterByIndex(l, master), netlink.LinkSetUp(l)); err != nil {
			t.Fatal(err)
		}
	})
}

// hold attaches a program of somebody else by a link.
func (h *host) holdByLink(t *testing.T, index int, mode link.XDPAttachFlags) link.Link {
	t.Helper()
	var l link.Link
	h.net.Do(func() {
		var err error
		if l, err = link.AttachXDP(link.XDPOptions{Program: passes(t), Interface: index, Flags: mode}); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { l.Close() })
	return l
}

// bond makes one with members, if there is such a thing.
func (h *host) bond(t *testing.T, mode netlink.BondMode, members ...int) (index int, ok bool) {
	t.Helper()
	b := netlink.NewLinkBond(named("bond0"))
	b.Mode = mode
	if index, ok = h.add(t, b); ok {
		for _, m := range members {
			h.enslave(t, m, index)
		}
	}
	return index, ok
}

// setQueues sets how many queues an end of a veth pair has. It returns false where they cannot be changed (before Linux
// 5.14).
func (h *host) setQueues(t *testing.T, name string, rx, tx uint32) (ok bool) {
	t.Helper()
	h.net.Do(func() {
		tool, err := ethtool.NewEthtool()
		if err != nil {
			t.Fatal(err)
		}
		defer tool.Close()
		channels, err := tool.GetChannels(name)
		if err == nil {
			channels.RxCount, channels.TxCount = rx, tx
			_, err = tool.SetChannels(name, channels)
		}
		if ok = err == nil; !ok && !errors.Is(err, unix.EOPNOTSUPP) {
			t.Fatal(err)
		}
	})
	return ok
}

// queues makes a veth pair whose counted end receives with one queue, of two that it may have, what the other sends
// with two.
func (h *host) queues(t *testing.T) (index int) {
	t.Helper()
	pair := &netlink.Veth{LinkAttrs: named("queues"), PeerName: "queues-peer", PeerNumTxQueues: 2, PeerNumRxQueues: 2}
	pair.NumTxQueues, pair.NumRxQueues = 2, 2
	index, _ = h.add(t, pair)
	if !h.setQueues(t, "queues", 1, 1) { // all are in use from the beginning
		h.net.Delete(t, "queues")
		pair.NumTxQueues, pair.NumRxQueues = 1, 1
		index, _ = h.add(t, pair)
	}
	h.net.Up(t, "queues-peer")
	h.setQueues(t, "queues-peer", 2, 2)
	return index
}

// speaks reports whether the kernel has the tracepoint that tells why (Linux 6.6).
func speaks(t *testing.T) bool {
	t.Helper()
	var w extackListener
	err := w.start()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return err == nil
}
