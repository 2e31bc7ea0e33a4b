// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/util/bulk"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

// namespace is a bulk.Namespace.
type namespace struct{ *netns.Namespace }

func (n namespace) Do(fn func() error) (err error) {
	n.Namespace.Do(func() { err = fn() })
	return err
}

// bulkTo connects another namespace with the lab by an interface of this name, and returns a connection through it. Its sender hands
// over aggregates, unless a program in native mode is on the interface.
func (l *lab) bulkTo(t *testing.T, name string) (connect func() *bulk.Connection) {
	t.Helper()
	far := netns.New(t)
	far.Add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "far"}, PeerName: name, PeerNamespace: netlink.NsFd(int(l.net.File().Fd()))})
	far.Up(t, "far")
	l.net.Up(t, name)
	address, err := bulk.Addresses(namespace{far}, namespace{l.net}, "far", name)
	if err != nil {
		t.Fatal(err)
	}
	return func() *bulk.Connection {
		c, err := bulk.Connect(t.Context(), namespace{far}, namespace{l.net}, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
}

func TestFramesOnTheWire(t *testing.T) {
	for name, test := range map[string]struct {
		flag  string
		mode  plan.Mode
		blind bool // the kernel has no BTF
	}{
		"native":                          {"-N", plan.Native, false},
		"generic":                         {"-S", plan.Generic, false},
		"native, on a kernel without BTF": {"-N", plan.Native, true},
		"generic, on a kernel without BTF, which counts aggregates": {"-S", plan.Generic, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			connect := l.bulkTo(t, "bulk0")
			cmd := exec.Command(binary)
			if test.blind {
				self, err := os.Executable()
				if err != nil {
					t.Fatal(err)
				}
				cmd = exec.Command(self)
				cmd.Env = append(os.Environ(), withoutTypes+"=1", "XDP_OPERATOR_XDPCOUNT="+binary)
			}
			p := l.startAs(t, cmd, test.flag, "bulk0")
			p.untilCounting(t)
			c := connect()
			if err := c.Send(4 << 20); err != nil {
				t.Fatal(err)
			}
			sent, err := c.Sent()
			if err != nil {
				t.Fatal(err)
			}
			skbs := l.link(t, "bulk0").Attrs().Statistics.RxPackets
			last, status := p.end(t, os.Interrupt)
			if status != 0 || len(last.Interfaces) != 1 {
				t.Fatalf("status %d: %s; %+v", status, p.stderr.String(), last)
			}
			i := last.Interfaces[0]
			got := counts(i)[fmt.Sprint(traffic.IPv4, " TCP ", true)]
			t.Logf("sent %+v, counted %+v, as %d packets", sent, got, skbs)
			aggregates := test.blind && test.mode == plan.Generic
			note := ""
			if aggregates {
				note = "xdpcount: bulk0: " + aggregatedNote + "\n"
			}
			if i.Mode != test.mode || i.Aggregated != aggregates || p.stderr.String() != note {
				t.Errorf("%+v, and on standard error %q, want %q", i, p.stderr.String(), note)
			}
			if !aggregates && got != sent {
				t.Errorf("counted %+v, and the wire has %+v", got, sent)
			}
			if aggregates && got.Packets >= sent.Packets/2 {
				t.Errorf("counted %d packets of %d frames: there was nothing to test", got.Packets, sent.Packets)
			}
			if test.mode == plan.Generic && skbs >= sent.Packets/2 {
				t.Errorf("%d packets for %d frames: there was nothing to test", skbs, sent.Packets)
			}
		})
	}
}
