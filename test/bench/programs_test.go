// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// pass is XDP_PASS of include/uapi/linux/bpf.h.
const pass = 2

// loadable returns those of the programs that this kernel can load: all, but for jumbo before Linux 5.18, and those that count
// the frames of aggregates, which package bpf tests.
func loadable(t *testing.T, all ...contender) []contender {
	t.Helper()
	return slices.DeleteFunc(all, func(c contender) bool {
		if c != jumbo && !c.countsWireFrames() || c == jumbo && knowsFragments(t) {
			return false
		}
		i, err := load(c)
		if c.countsWireFrames() && err == nil {
			return i.close() != nil
		}
		if c == jumbo && !errors.Is(err, unix.EINVAL) {
			t.Fatalf("a kernel without xdp.frags loads %v: %v", i, err)
		}
		return true
	})
}

func knowsFragments(t *testing.T) bool {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, Flags: unix.BPF_F_XDP_HAS_FRAGS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()},
	})
	if errors.Is(err, unix.EINVAL) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	program.Close()
	return true
}

func loadFor(t *testing.T, c contender) *instance {
	t.Helper()
	// Kernels before 5.11 charge maps to the limit of locked memory. Where it may not be raised it may still do.
	_ = rlimit.RemoveMemlock()
	i, err := load(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.close(); err != nil {
			t.Error(err)
		}
	})
	return i
}

// runOnce returns what the program has counted so far, this frame included.
func (i *instance) runOnce(t *testing.T, f frames.Frame) tally {
	t.Helper()
	verdict, err := i.program.Run(&ebpf.RunOptions{Data: f.Data})
	if err != nil {
		t.Fatalf("%s: %v", f.Name, err)
	}
	if verdict != pass {
		t.Errorf("%s: the verdict is %d", f.Name, verdict)
	}
	got, err := i.counted()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestProgramsPassFrames(t *testing.T) {
	for _, c := range loadable(t, empty, xdp1, limit, plain, jumbo, generic, wireKfunc, wireHelper) {
		i := loadFor(t, c)
		for _, k := range kinds() {
			i.runOnce(t, k.frame)
		}
	}
}

func TestXDP1Counts(t *testing.T) {
	i := loadFor(t, xdp1)
	want := map[uint32]uint64{}
	for _, tc := range []struct {
		frame   frames.Frame
		key     uint32
		packets uint64
	}{
		{named("TCP over IPv4"), 6, 1},
		{named("UDP over IPv4"), 17, 1},
		{named("TCP over IPv6"), 6, 1},
		{named("ICMPv6"), 58, 1},
		{named("UDP over IPv6 in a VLAN"), 17, 1},
		{named("UDP over IPv4 in 802.1ad and 802.1Q tags"), 17, 1},
		{named("UDP over IPv4 in three tags"), 0, 1},
		{named("UDP over IPv4 in a 0x9100 tag"), 0, 1},
		{named("an ARP request"), 0, 1},
		{named("LLDP"), 0, 1},
		{named("UDP over IPv4").Cut(20), 0, 1},
		{named("IPv6 with destination options"), 60, 1}, // the first next header
		{named("UDP over IPv4 in an 802.1Q tag").Cut(16), 0, 0},
	} {
		want[tc.key] += tc.packets
		got := map[uint32]uint64{}
		for key, counts := range i.runOnce(t, tc.frame) {
			got[key] = counts.Packets
			if counts.Bytes != 0 {
				t.Errorf("%s: it counts bytes", tc.frame.Name)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("after %s (-want +got):\n%s", tc.frame.Name, diff)
		}
	}
}

func TestLimitCounts(t *testing.T) {
	i := loadFor(t, limit)
	var all traffic.Counts
	for _, k := range kinds() {
		all = all.Plus(traffic.Counts{Packets: 1, Bytes: uint64(len(k.frame.Data))})
		if diff := cmp.Diff(tally{0: all}, i.runOnce(t, k.frame)); diff != "" {
			t.Fatalf("after %s (-want +got):\n%s", k.name, diff)
		}
	}
}

func TestOurCounts(t *testing.T) {
	for _, c := range loadable(t, plain, jumbo, generic, wireKfunc, wireHelper) {
		for _, k := range kinds() {
			i := loadFor(t, c)
			if got, want := i.runOnce(t, k.frame), c.expected(k.frame, 1); !maps.Equal(want, got) {
				t.Errorf("%s: %s: counted %v, want %v", c, k.name, got, want)
			}
		}
	}
}

func TestEmptyProgramCounts(t *testing.T) {
	if got := loadFor(t, empty).runOnce(t, kinds()[0].frame); len(got) > 0 {
		t.Errorf("it counted %v", got)
	}
}

func TestLoadsHaveSeparateMaps(t *testing.T) {
	for _, c := range loadable(t, xdp1, limit, plain, jumbo) {
		first, second := loadFor(t, c), loadFor(t, c)
		first.runOnce(t, kinds()[0].frame)
		if got, want := second.runOnce(t, kinds()[0].frame), c.expected(kinds()[0].frame, 1); !maps.Equal(want, got) {
			t.Errorf("%s: counted %v, want %v", c, got, want)
		}
	}
}
