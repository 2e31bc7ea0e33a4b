// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
)

// holder is somebody else's way of holding a hook. It returns how it lets go.
type holder func(t *testing.T, index int, p *ebpf.Program) (letGo func() error, err error)

func byLink(flags link.XDPAttachFlags) holder {
	return func(_ *testing.T, index int, p *ebpf.Program) (func() error, error) {
		l, err := link.AttachXDP(link.XDPOptions{Program: p, Interface: index, Flags: flags})
		if err != nil {
			return nil, err
		}
		return func() error { return errors.Join(l.Detach(), l.Close()) }, nil
	}
}

// byNetlink takes XDP_FLAGS_* of include/uapi/linux/if_link.h.
func byNetlink(flags int) holder {
	return func(t *testing.T, index int, p *ebpf.Program) (func() error, error) {
		l, err := netlink.LinkByIndex(index)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetXdpFdWithFlags(l, p.FD(), flags); err != nil {
			return nil, err
		}
		return func() error { return netlink.LinkSetXdpFdWithFlags(l, -1, flags) }, nil
	}
}

var holders = map[string]struct {
	hold holder
	mode plan.Mode
}{
	"natively by a link":       {byLink(link.XDPDriverMode), plan.Native},
	"generically by a link":    {byLink(link.XDPGenericMode), plan.Generic},
	"natively by rtnetlink":    {byNetlink(unix.XDP_FLAGS_DRV_MODE), plan.Native},
	"generically by rtnetlink": {byNetlink(unix.XDP_FLAGS_SKB_MODE), plan.Generic},
}

// Whoever was first stays, is named, and is followed by us as soon as it lets go.
func TestForeignProgramHoldsTheHook(t *testing.T) {
	for name, holder := range holders {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			program := passes(t)
			var letGo func() error
			h.net.Do(func() {
				var err error
				if letGo, err = holder.hold(t, h.index, program); err != nil {
					t.Fatal(err)
				}
			})
			before := h.hook(t, h.index)
			info, err := program.Info()
			if err != nil {
				t.Fatal(err)
			}
			for _, mode := range []plan.Mode{plan.Auto, plan.Native, plan.Generic} {
				err := h.attach(h.index, mode)
				if !errors.Is(err, plan.ErrHookInUse) {
					t.Fatalf("%s: %v", mode, err)
				}
				if whose := fmt.Sprintf("id %d name %q tag %s", before.ProgId, "foreign", info.Tag); !strings.Contains(err.Error(), whose) {
					t.Errorf("%s: %v, which does not say %s", mode, err, whose)
				}
				h.withCapabilities(t, []int{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON}, func() {
					err := h.Attach(plan.Attachment{Index: h.index, Name: nasty, Mode: mode})
					if whose := fmt.Sprintf("the hook, id %d: ", before.ProgId); !errors.Is(err, plan.ErrHookInUse) || !strings.Contains(err.Error(), whose) {
						t.Errorf("%s, with the agent's rights: %v, want %q in it", mode, err, whose)
					}
				})
			}
			if diff := cmp.Diff(before, h.hook(t, h.index)); diff != "" || !before.Attached {
				t.Errorf("the foreign program did not stay (-before +after):\n%s", diff)
			}
			h.expectNothingPinned(t)

			h.net.Do(func() {
				if err := letGo(); err != nil {
					t.Fatal(err)
				}
			})
			h.mustAttach(t, plan.Auto)
			h.traffic(t, 2)
			h.expectCounted(t)
		})
	}
}

// Whoever comes after us is refused by the kernel, in whatever way and mode, and we stay; also when it tries to take
// away what is there.
func TestForeignProgramComesAfterUs(t *testing.T) {
	for name, holder := range holders {
		for _, mode := range []plan.Mode{plan.Native, plan.Generic} {
			t.Run(name+", while we count in mode "+string(mode), func(t *testing.T) {
				h := newHost(t)
				h.mustAttach(t, mode)
				before, hook := h.onlyAttached(t), h.hook(t, h.index)
				h.net.Do(func() {
					if _, err := holder.hold(t, h.index, passes(t)); !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EEXIST) {
						t.Errorf("it was let in: %v", err)
					}
					l, err := netlink.LinkByIndex(h.index)
					if err != nil {
						t.Fatal(err)
					}
					flags := map[plan.Mode]int{plan.Native: unix.XDP_FLAGS_DRV_MODE, plan.Generic: unix.XDP_FLAGS_SKB_MODE}[mode]
					if err := netlink.LinkSetXdpFdWithFlags(l, -1, flags); !errors.Is(err, unix.EBUSY) {
						t.Errorf("it was let take ours away: %v", err)
					}
				})
				if diff := cmp.Diff(before, h.onlyAttached(t)) + cmp.Diff(hook, h.hook(t, h.index)); diff != "" {
					t.Errorf("we did not stay (-before +after):\n%s", diff)
				}
				h.traffic(t, 2)
				h.expectCounted(t)
			})
		}
	}
}

// In a race one wins, whoever it is: the other is told, nobody is displaced, and nothing of the loser is left.
func TestRaceForTheHook(t *testing.T) {
	for name, holder := range holders {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			program := passes(t)
			for round := range 20 {
				var theirs, ours error
				var letGo func() error
				var both sync.WaitGroup
				start := make(chan struct{})
				both.Go(func() {
					h.net.Do(func() {
						<-start
						letGo, theirs = holder.hold(t, h.index, program)
					})
				})
				both.Go(func() {
					<-start
					ours = h.attach(h.index, plan.Auto)
				})
				close(start)
				both.Wait()
				switch {
				case (theirs == nil) == (ours == nil):
					t.Fatalf("round %d: theirs %v, ours %v", round, theirs, ours)
				case ours == nil:
					if err := h.Detach(h.onlyAttached(t)); err != nil {
						t.Fatal(err)
					}
				case !errors.Is(ours, plan.ErrHookInUse):
					t.Fatalf("round %d: %v", round, ours)
				default:
					h.expectNothingPinned(t)
					h.net.Do(func() {
						if err := letGo(); err != nil {
							t.Fatal(err)
						}
					})
				}
			}
		})
	}
}

// What AF_XDP's users attach is a program like any other to us: it redirects what it has a socket for.
func TestProgramOfAnAFXDPSocketHoldsTheHook(t *testing.T) {
	h := newHost(t)
	sockets, err := ebpf.NewMap(&ebpf.MapSpec{Name: "xsks_map", Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer sockets.Close()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "xsk_def_prog", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{ // return bpf_redirect_map(&xsks_map, ctx->rx_queue_index, XDP_PASS)
			asm.LoadMem(asm.R2, asm.R1, 16, asm.Word),
			asm.LoadMapPtr(asm.R1, sockets.FD()),
			asm.Mov.Imm(asm.R3, 2),
			asm.FnRedirectMap.Call(),
			asm.Return(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	h.net.Do(func() {
		if _, err := byNetlink(unix.XDP_FLAGS_DRV_MODE)(t, h.index, program); err != nil {
			t.Fatal(err)
		}
	})
	if err := h.attach(h.index, plan.Auto); !errors.Is(err, plan.ErrHookInUse) || !strings.Contains(err.Error(), `name "xsk_def_prog"`) {
		t.Error(err)
	}
	h.expectNothingPinned(t)
}

// Our own link, left by an agent that crashed, is no foreign one: a restarted agent goes on with it and its counts.
func TestOwnLinkOfACrashedAgentIsNotForeign(t *testing.T) {
	for _, mode := range []plan.Mode{plan.Native, plan.Generic} {
		h := newHost(t)
		h.mustAttach(t, mode)
		h.traffic(t, 2)
		before := h.onlyAttached(t)
		h.open(t)
		h.mustAttach(t, mode)
		if diff := cmp.Diff(before, h.onlyAttached(t)); diff != "" {
			t.Errorf("%s (-before +after):\n%s", mode, diff)
		}
		h.expectCounted(t)
	}
}

func TestTheKernelIsHeard(t *testing.T) {
	if !speaks(t) {
		return // the reasons are then told without words, which the other tests show
	}
	h := newHost(t)
	bridge := h.net.Bridge(t, "br0")
	refuse := func(w *extackListener, index int) string {
		t.Helper()
		var said string
		var err error
		h.net.Do(func() {
			said, err = w.run(func() error {
				l, err := link.AttachXDP(link.XDPOptions{Program: passes(t), Interface: index, Flags: link.XDPDriverMode})
				if err == nil {
					l.Close()
				}
				return err
			})
		})
		if (err == nil) != (index == h.index) {
			t.Fatal(err)
		}
		return said
	}
	const unsupported = "Underlying driver does not support XDP in native mode"
	var w extackListener
	defer w.Close()
	for name, tc := range map[string]struct {
		index int
		want  string
	}{
		"what it refuses":         {bridge, unsupported},
		"what it takes":           {h.index, ""},
		"what it says nothing to": {4711, ""},
	} {
		for range 2 { // the first time it has to begin to listen
			if said := refuse(&w, tc.index); said != tc.want {
				t.Errorf("%s: said %q, want %q", name, said, tc.want)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if said := refuse(&w, bridge); said != unsupported {
		t.Errorf("after it was closed: %q", said)
	}
}
