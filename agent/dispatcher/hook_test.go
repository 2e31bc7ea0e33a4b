// SPDX-License-Identifier: Apache-2.0

package dispatcher

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/bpf"
	"github.com/xdp-operator/xdp-operator/test/util/bpffs"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

// passes is a program as anybody might attach it.
func passes(t *testing.T) *ebpf.Program {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "passes", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return program
}

// bridge makes an interface above this one.
func bridge(t *testing.T, port int) (index int) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "above"
	l := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(l); err != nil {
		t.Fatal(err)
	}
	below, err := netlink.LinkByIndex(port)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetMasterByIndex(below, l.Index); err != nil {
		t.Fatal(err)
	}
	return l.Index
}

// few makes a veth that receives with fewer queues than its peer sends with, to which its driver says no.
func few(t *testing.T) (index int) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = "few", 1, 1
	l := &netlink.Veth{LinkAttrs: attrs, PeerName: "many", PeerNumTxQueues: 2, PeerNumRxQueues: 2}
	if err := netlink.LinkAdd(l); err != nil {
		t.Fatal(err)
	}
	return l.Index
}

func TestWhatTheKernelSaysOfAnExchange(t *testing.T) {
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		mode   plan.Mode
		before func(t *testing.T, index int, present *ebpf.Program)
		from   bool // it shall take the place of the present program
		leaves bool // nothing shall take its place
		want   error
	}{
		"the hook is free": {mode: plan.Native},
		"the present one is exchanged": {mode: plan.Native, from: true, before: func(t *testing.T, index int, present *ebpf.Program) {
			must(t, exchange(index, plan.Native, nil, present))
		}},
		"another one came first": {mode: plan.Native, want: errChanged, before: func(t *testing.T, index int, present *ebpf.Program) {
			must(t, exchange(index, plan.Native, nil, present))
		}},
		"another one came first, in the other mode": {mode: plan.Native, want: errChanged, before: func(t *testing.T, index int, present *ebpf.Program) {
			must(t, exchange(index, plan.Generic, nil, present))
		}},
		"another one came first, by a link": {mode: plan.Native, want: errChanged, before: func(t *testing.T, index int, present *ebpf.Program) {
			l, err := link.AttachXDP(link.XDPOptions{Program: present, Interface: index, Flags: link.XDPDriverMode})
			must(t, err)
			t.Cleanup(func() { l.Close() })
		}},
		"another one is there than was expected": {mode: plan.Native, from: true, want: errChanged, before: func(t *testing.T, index int, _ *ebpf.Program) {
			must(t, exchange(index, plan.Native, nil, passes(t)))
		}},
		"the expected one is not there any more": {mode: plan.Native, from: true, leaves: true, want: errChanged},
		"the present one is attached by a link": {mode: plan.Native, from: true, want: plan.ErrHookInUse, before: func(t *testing.T, index int, present *ebpf.Program) {
			l, err := link.AttachXDP(link.XDPOptions{Program: present, Interface: index, Flags: link.XDPDriverMode})
			must(t, err)
			t.Cleanup(func() { l.Close() })
		}},
		"an interface above has one": {mode: plan.Native, want: plan.ErrUpperHasProgram, before: func(t *testing.T, index int, _ *ebpf.Program) {
			must(t, exchange(bridge(t, index), plan.Generic, nil, passes(t)))
		}},
		"an interface above has one by now": {mode: plan.Native, from: true, want: plan.ErrUpperHasProgram, before: func(t *testing.T, index int, present *ebpf.Program) {
			must(t, exchange(index, plan.Native, nil, present))
			must(t, exchange(bridge(t, index), plan.Generic, nil, passes(t)))
		}},
		"an interface above has one when the last one leaves": {mode: plan.Native, from: true, leaves: true, want: plan.ErrUpperHasProgram, before: func(t *testing.T, index int, present *ebpf.Program) {
			must(t, exchange(index, plan.Native, nil, present))
			must(t, exchange(bridge(t, index), plan.Generic, nil, passes(t)))
		}},
		"the interface goes": {mode: plan.Native, want: plan.ErrInterfaceGone, before: func(t *testing.T, index int, _ *ebpf.Program) {
			l, err := netlink.LinkByIndex(index)
			must(t, err)
			must(t, netlink.LinkDel(l))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			n := netns.New(t)
			index, _ := n.Veth(t, "eth0", "peer")
			present, next := passes(t), passes(t)
			n.Do(func() {
				if tc.before != nil {
					tc.before(t, index, present)
				}
				if !tc.from {
					present = nil
				}
				if tc.leaves {
					next = nil
				}
				if err := exchange(index, tc.mode, present, next); !errors.Is(err, tc.want) {
					t.Errorf("%v, want %v", err, tc.want)
				}
			})
		})
	}
}

// What a driver says no for is no program of somebody else's, and generic mode needs nothing of it.
func TestWhatADriverSays(t *testing.T) {
	for name, tc := range map[string]struct {
		errno syscall.Errno
		mode  plan.Mode
		first bool
		want  error
	}{
		"too few queues":                      {unix.ENOSPC, plan.Native, true, plan.ErrNotEnoughQueues},
		"no memory":                           {unix.ENOMEM, plan.Native, true, plan.ErrOutOfMemory},
		"too large an MTU":                    {unix.ERANGE, plan.Native, true, plan.ErrMTUTooLarge},
		"no native mode":                      {unix.EOPNOTSUPP, plan.Native, true, plan.ErrNativeUnsupported},
		"the same by the kernel's own number": {524, plan.Native, true, plan.ErrNativeUnsupported},
		"anything, as many do":                {unix.EINVAL, plan.Native, true, plan.ErrNativeRefused},
		"anything, when it has one already":   {unix.EINVAL, plan.Native, false, unix.EINVAL},
		"anything, which is not the driver's": {unix.EINVAL, plan.Generic, true, unix.EINVAL},
		"we may not":                          {unix.EPERM, plan.Native, true, plan.ErrPermission},
	} {
		err := explainExchangeError(tc.errno, tc.mode, tc.first)
		if !errors.Is(err, tc.want) || errors.Is(err, plan.ErrNativeRefused) != errors.Is(tc.want, plan.ErrNativeRefused) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

// A dispatcher that calls nobody is attached as any other is, and wants no kernel that lets programs replace functions.
func TestAutoIsGenericWhereTheDriverRefuses(t *testing.T) {
	auto := []plan.Mode{plan.Native, plan.Generic}
	for name, tc := range map[string]struct {
		make  func(t *testing.T, n *netns.Namespace) (index int)
		modes []plan.Mode
		want  plan.Mode
		err   error
	}{
		"a driver that takes it":    {func(t *testing.T, n *netns.Namespace) int { i, _ := n.Veth(t, "eth0", "peer"); return i }, auto, plan.Native, nil},
		"too few queues":            {func(t *testing.T, _ *netns.Namespace) int { return few(t) }, auto, plan.Generic, nil},
		"too few queues for Native": {func(t *testing.T, _ *netns.Namespace) int { return few(t) }, auto[:1], "", plan.ErrNotEnoughQueues},
		"an interface above has one": {func(t *testing.T, n *netns.Namespace) int {
			i, _ := n.Veth(t, "eth0", "peer")
			if err := exchange(bridge(t, i), plan.Generic, nil, passes(t)); err != nil {
				t.Fatal(err)
			}
			return i
		}, auto, "", plan.ErrUpperHasProgram},
	} {
		t.Run(name, func(t *testing.T) {
			n := netns.New(t)
			n.Do(func() {
				h := Hook{Bpffs: bpffs.Mount(t)}
				h.Index, h.Journal = tc.make(t, n), h.Bpffs
				unlock, err := h.lock()
				if err != nil {
					t.Fatal(err)
				}
				defer unlock()
				if err := h.replace(present{}, nil, Program{}, tc.modes); !errors.Is(err, tc.err) {
					t.Errorf("%v, want %v", err, tc.err)
				}
				on, err := attached(h.Index)
				if err != nil || on.Mode != tc.want {
					t.Errorf("on the hook is %+v, error %v, want %q", on, err, tc.want)
				}
				left, _ := filepath.Glob(filepath.Join(h.root(), "*"))
				if (len(left) == 1) != (tc.want != "") {
					t.Errorf("pinned is %q", left)
				}
			})
		})
	}
}

// Only for what was not loaded another variant of it is worth a try.
func TestWhatIsNotLoadedIsToldApart(t *testing.T) {
	m, err := build([]member{{name: "ours"}}, Program{Load: func(bpf.Place) (*ebpf.Program, error) { return nil, errors.New("not today") }})
	m.close()
	if !errors.Is(err, plan.ErrDispatcherRefused) || !errors.Is(err, ErrNotLoaded) || !strings.Contains(err.Error(), "not today") {
		t.Errorf("%v", err)
	}
	m, err = build([]member{{name: "theirs", program: passes(t)}}, Program{}) // which replaces no function
	m.close()
	if !errors.Is(err, plan.ErrDispatcherRefused) || errors.Is(err, ErrNotLoaded) {
		t.Errorf("%v", err)
	}
}
