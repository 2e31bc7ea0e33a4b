// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

func TestHookInUse(t *testing.T) {
	n := c.Nodes()[1]
	foreign, program := attachForeign(t, n)

	counter(t, "busy", nil)
	expectReady(t, "busy", "False", v1alpha1.ReasonPartiallyAttached)
	x, err := get(t, "busy")
	if err != nil {
		t.Fatal(err)
	}
	want := v1alpha1.Failure{
		Node: n.Name, Interface: "eth0", Reason: v1alpha1.ReasonXDPHookInUse,
		Message: fmt.Sprintf("program id %d is attached in Native mode; remedy: remove that program, then counting starts without further action, or exclude the interface; on the node: bpftool net show dev eth0", program),
	}
	if len(x.Status.Failures) != 1 {
		t.Fatalf("failures %v, want one", x.Status.Failures)
	}
	got := x.Status.Failures[0]
	if !strings.HasSuffix(got.Message, want.Message) || got.Node != want.Node || got.Interface != want.Interface || got.Reason != want.Reason {
		t.Errorf("failure %v, want %v", got, want)
	}
	if programs, err := n.Programs(); err != nil || !slices.Equal(programs, []uint32{program}) {
		t.Errorf("programs on the node are %v, %v, want the foreign one, %d", programs, err, program)
	}
	var sent traffic.Totals
	send(t, c.Nodes()[0], frames.Common()[0], 4, &sent) // the other nodes count
	expectTotals(t, "busy", sent)

	if err := errors.Join(foreign.Detach(), foreign.Close()); err != nil {
		t.Fatal(err)
	}
	expectReady(t, "busy", "True", v1alpha1.ReasonAllInterfacesAttached)
	send(t, n, frames.Common()[0], 5, &sent)
	expectTotals(t, "busy", sent)
}

// attachForeign attaches another program to the node's eth0.
func attachForeign(t *testing.T, n *netnscluster.Node) (held link.Link, program uint32) {
	t.Helper()
	passes, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreign", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.LoadImm(asm.R0, 2 /* XDP_PASS */, asm.DWord), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = passes.Close() }()
	err = n.Do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		held, err = link.AttachXDP(link.XDPOptions{Program: passes, Interface: eth0.Attrs().Index, Flags: link.XDPDriverMode})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = held.Close() })
	info, err := passes.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return held, uint32(id)
}
