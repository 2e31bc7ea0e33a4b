// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
)

// Every reason that real interfaces give for refusing native XDP, on the machine of the developer and in the guests of
// test/kernels, whose kernels have more kinds of interface.
func TestWhyNativeIsRefused(t *testing.T) {
	const core = "Underlying driver does not support XDP in native mode"
	for name, test := range map[string]struct {
		make func(*testing.T, *host) (index int, ok bool)
		want error
		says string // the kernel, if it speaks
		last bool   // generic is refused too, so Auto fails for the same reason
		late bool   // only younger kernels than 5.15 look at it
	}{
		"a bridge has no native XDP": {
			make: func(t *testing.T, h *host) (int, bool) { return h.net.Bridge(t, "br0"), true },
			want: plan.ErrNativeUnsupported, says: core,
		},
		"nor has the loopback interface": {
			make: func(*testing.T, *host) (int, bool) { return 1, true },
			want: plan.ErrNativeUnsupported, says: core,
		},
		"nor a VLAN on an interface that has": {
			make: func(t *testing.T, h *host) (int, bool) {
				return h.add(t, &netlink.Vlan{LinkAttrs: on(h.index, "v.100"), VlanId: 100})
			},
			want: plan.ErrNativeUnsupported, says: core,
		},
		"nor a macvlan": {
			make: func(t *testing.T, h *host) (int, bool) {
				return h.add(t, &netlink.Macvlan{LinkAttrs: on(h.index, "macvlan0"), Mode: netlink.MACVLAN_MODE_BRIDGE})
			},
			want: plan.ErrNativeUnsupported, says: core,
		},
		"nor a bond in a mode that is not for it": {
			make: func(t *testing.T, h *host) (int, bool) { return h.bond(t, netlink.BOND_MODE_BROADCAST, h.index) },
			want: plan.ErrNativeUnsupported, says: "No native XDP support for the current bonding mode",
		},
		"nor a bond with a member that has none": {
			make: func(t *testing.T, h *host) (int, bool) {
				member, ok := h.add(t, &netlink.Macvlan{LinkAttrs: on(h.index, "macvlan0"), Mode: netlink.MACVLAN_MODE_BRIDGE})
				if !ok {
					return 0, false
				}
				return h.bond(t, netlink.BOND_MODE_ACTIVE_BACKUP, member)
			},
			want: plan.ErrNativeUnsupported, says: "Slave device does not support XDP",
		},
		"a bond's member has a program": {
			make: func(t *testing.T, h *host) (int, bool) {
				index, ok := h.bond(t, netlink.BOND_MODE_ACTIVE_BACKUP, h.index)
				if ok {
					h.holdByLink(t, h.index, link.XDPDriverMode)
				}
				return index, ok
			},
			want: plan.ErrMemberHasProgram, says: "Slave has XDP program loaded, please unload before enslaving",
		},
		"the bond above has a program": {
			make: func(t *testing.T, h *host) (int, bool) {
				index, ok := h.bond(t, netlink.BOND_MODE_ACTIVE_BACKUP, h.index)
				if ok {
					h.holdByLink(t, index, link.XDPGenericMode)
				}
				return h.index, ok
			},
			want: plan.ErrUpperHasProgram, says: "Cannot attach when an upper device already has a program", last: true, late: true,
		},
		"the bridge above has a program": {
			make: func(t *testing.T, h *host) (int, bool) {
				index := h.net.Bridge(t, "br0")
				h.enslave(t, h.index, index)
				h.holdByLink(t, index, link.XDPGenericMode)
				return h.index, true
			},
			want: plan.ErrUpperHasProgram, says: "Cannot attach when an upper device already has a program", last: true, late: true,
		},
		"the VLAN above has a program": {
			make: func(t *testing.T, h *host) (int, bool) {
				index, ok := h.add(t, &netlink.Vlan{LinkAttrs: on(h.index, "v.100"), VlanId: 100})
				if ok {
					h.holdByLink(t, index, link.XDPGenericMode)
				}
				return h.index, ok
			},
			want: plan.ErrUpperHasProgram, says: "Cannot attach when an upper device already has a program", last: true, late: true,
		},
		"the MTU is large and the kernel knows no programs for many buffers": {
			make: func(t *testing.T, h *host) (int, bool) {
				h.setMTU(t, 9000)
				h.withoutFragments()
				return h.index, true
			},
			want: plan.ErrMTUTooLarge, says: "veth: Peer MTU is too large to set XDP",
		},
		"fewer queues receive than the peer sends with": {
			make: func(t *testing.T, h *host) (int, bool) { return h.queues(t), true },
			want: plan.ErrNotEnoughQueues, says: "veth: XDP expects number of rx queues not less than peer tx queues",
		},
		"with so few queues the large MTU is not what is in the way": {
			make: func(t *testing.T, h *host) (int, bool) {
				index := h.queues(t)
				h.net.Do(func() {
					for _, name := range []string{"queues", "queues-peer"} {
						l, err := netlink.LinkByName(name)
						if err := errors.Join(err, netlink.LinkSetMTU(l, 9000)); err != nil {
							t.Fatal(err)
						}
					}
				})
				return index, knowsFragments(t)
			},
			want: plan.ErrNotEnoughQueues, says: "veth: XDP expects number of rx queues not less than peer tx queues",
		},
		"there is no such interface": {
			make: func(*testing.T, *host) (int, bool) { return 4711, true },
			want: plan.ErrInterfaceGone, last: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			index, ok := test.make(t, h)
			if !ok {
				return
			}
			err := h.attach(index, plan.Native)
			if test.late && err == nil && !knowsFragments(t) {
				return
			}
			if !errors.Is(err, test.want) {
				t.Fatalf("native: %v, want %v", err, test.want)
			}
			// What the kernel says was put in later in places, by a driver that said nothing before.
			if says := strings.Contains(err.Error(), test.says); !says && speaks(t) {
				t.Errorf("native: %v, the kernel says %q", err, test.says)
			}
			h.expectNothingPinned(t)
			if test.last {
				if err := h.attach(index, plan.Auto); !errors.Is(err, test.want) {
					t.Errorf("automatic: %v, want %v", err, test.want)
				}
				if err := h.attach(index, plan.Generic); !errors.Is(err, test.want) {
					t.Errorf("generic: %v, want %v", err, test.want)
				}
				h.expectNothingPinned(t)
				return
			}

			if err := h.attach(index, plan.Auto); err != nil {
				t.Fatalf("automatic: %v", err)
			}
			h.expectFallback(t, index, test.want)
			h.open(t) // a restarted agent knows it too
			h.expectFallback(t, index, test.want)
			a := h.onlyAttached(t)
			if err := h.Detach(a); err != nil {
				t.Fatal(err)
			}
			h.expectNothingPinned(t)
			if err := h.attach(index, plan.Generic); err != nil {
				t.Fatalf("generic: %v", err)
			}
			if a := h.onlyAttached(t); a.Refused != nil {
				t.Errorf("generic, as asked for: %v", a.Refused)
			}
		})
	}
}

// withoutFragments makes the kernel one before 5.18.
func (h *host) withoutFragments() {
	h.spec = h.spec.Copy()
	h.spec.Programs["count_frame_frags"].Flags = 1 << 30 // no kernel knows this one
}

func (h *host) expectFallback(t *testing.T, index int, want error) {
	t.Helper()
	a, hook := h.onlyAttached(t), h.hook(t, index)
	if hook.AttachMode != skb || hook.ProgId != a.Program {
		t.Errorf("the hook says %+v, attached is %+v", hook, a)
	}
	if !errors.Is(a.Refused, want) || a.Improved {
		t.Errorf("refused: %v, want %v; improved: %t", a.Refused, want, a.Improved)
	}
}

// What Auto fell back for is seen to be cured, and only that: each change of the interface is told as no improvement
// until the one that is.
func TestNativeIsTriedAgainWhenWhatWasInItsWayHasChanged(t *testing.T) {
	again := func(t *testing.T, h *host, index int) {
		t.Helper()
		a := h.onlyAttached(t)
		if !a.Improved {
			t.Fatalf("nothing seems to have improved: %v", a.Refused)
		}
		if err := h.Detach(a); err != nil {
			t.Fatal(err)
		}
		if err := h.attach(index, plan.Auto); err != nil {
			t.Fatal(err)
		}
		if a := h.onlyAttached(t); a.Refused != nil || a.Improved || h.hook(t, index).AttachMode != drv {
			t.Errorf("after that: %+v, the hook says %+v", a, h.hook(t, index))
		}
	}
	t.Run("the MTU was lowered", func(t *testing.T) {
		h := newHost(t)
		h.setMTU(t, 9000)
		h.withoutFragments()
		h.mustAttach(t, plan.Auto)
		h.setMTU(t, 9500)
		h.expectFallback(t, h.index, plan.ErrMTUTooLarge)
		h.setMTU(t, 1500)
		again(t, h, h.index)
		h.traffic(t, 3)
		h.expectCounted(t)
	})
	t.Run("the MTU was lowered while no agent ran", func(t *testing.T) {
		h := newHost(t)
		h.setMTU(t, 9000)
		h.withoutFragments()
		h.mustAttach(t, plan.Auto)
		h.setMTU(t, 1500)
		h.open(t)
		again(t, h, h.index)
	})
	t.Run("there are more queues", func(t *testing.T) {
		h := newHost(t)
		index := h.queues(t)
		if err := h.attach(index, plan.Auto); err != nil {
			t.Fatal(err)
		}
		h.expectFallback(t, index, plan.ErrNotEnoughQueues)
		if h.setQueues(t, "queues", 2, 2) {
			again(t, h, index)
		}
	})
	t.Run("the member's program is gone", func(t *testing.T) {
		if !knowsFragments(t) {
			return // bonds have no native XDP before Linux 5.15, which does not say why it refuses
		}
		h := newHost(t)
		index, ok := h.bond(t, netlink.BOND_MODE_ACTIVE_BACKUP, h.index)
		if !ok {
			return
		}
		l := h.holdByLink(t, h.index, link.XDPDriverMode)
		if err := h.attach(index, plan.Auto); err != nil {
			t.Fatal(err)
		}
		h.expectFallback(t, index, plan.ErrMemberHasProgram)
		if err := l.Detach(); err != nil {
			t.Fatal(err)
		}
		again(t, h, index)
	})
}

func TestWhatImprovesASituation(t *testing.T) {
	then := deviceFacts{MTU: 9000, Rx: 1, Tx: 1, Combined: 4, Offloads: []string{"rx-gro-hw", "rx-lro"}, Announce: cannot, Members: []int{4, 5}}
	all := []error{
		plan.ErrMTUTooLarge, plan.ErrNotEnoughQueues, plan.ErrOffloadConflict, plan.ErrMemberHasProgram, plan.ErrNativeUnsupported,
		plan.ErrNativeRefused, plan.ErrOutOfMemory,
	}
	for name, tc := range map[string]struct {
		change func(*deviceFacts)
		want   []error // fallbackCauses for which it is an improvement
	}{
		"nothing changes":               {func(*deviceFacts) {}, nil},
		"a smaller MTU":                 {func(s *deviceFacts) { s.MTU = 3000 }, []error{plan.ErrMTUTooLarge, plan.ErrNativeRefused, plan.ErrOutOfMemory}},
		"a larger MTU":                  {func(s *deviceFacts) { s.MTU = 9500 }, nil},
		"other queues":                  {func(s *deviceFacts) { s.Combined = 2 }, []error{plan.ErrNotEnoughQueues, plan.ErrNativeRefused, plan.ErrOutOfMemory}},
		"there can be more queues only": {func(s *deviceFacts) { s.Most = 64 }, nil},
		"one of the offloads is off":    {func(s *deviceFacts) { s.Offloads = []string{"rx-lro"} }, []error{plan.ErrOffloadConflict}},
		"the driver announces XDP":      {func(s *deviceFacts) { s.Announce = can }, []error{plan.ErrNativeUnsupported}},
		"a newer kernel says nothing":   {func(s *deviceFacts) { s.Announce = "" }, nil},
		"a member's program is gone":    {func(s *deviceFacts) { s.Members = []int{5} }, []error{plan.ErrMemberHasProgram, plan.ErrNativeRefused, plan.ErrOutOfMemory}},
		"another member has one":        {func(s *deviceFacts) { s.Members = []int{4, 5, 6} }, nil},
		"the interface cannot be seen":  {func(s *deviceFacts) { s.MTU, s.Rx, s.Tx, s.Combined = 0, 0, 0, 0 }, nil},
	} {
		now := then
		tc.change(&now)
		for _, cause := range all {
			if got, want := then.improved(fmt.Errorf("native: %w", cause), now), slices.Contains(tc.want, cause); got != want {
				t.Errorf("%s, after %q: %t, want %t", name, cause, got, want)
			}
		}
	}
}

// What drivers say that are not to be had here: their words from the kernel's sources, the errno with them.
func TestMeaningOfADriversRefusal(t *testing.T) {
	jumbo := deviceFacts{MTU: 9000, Announce: can}
	for name, tc := range map[string]struct {
		errno unix.Errno
		said  string
		s     deviceFacts
		want  error
	}{
		"virtio_net: an offload of the host":       {unix.EOPNOTSUPP, "virtio_net: Can't set XDP while host is implementing GRO_HW/CSUM, disable GRO_HW/CSUM first", deviceFacts{}, plan.ErrOffloadConflict},
		"virtio_net: the MTU":                      {unix.EINVAL, "virtio_net: MTU too large to enable XDP", deviceFacts{}, plan.ErrMTUTooLarge},
		"virtio_net before 5.13: the rings":        {unix.ENOMEM, "virtio_net: Too few free TX rings available", deviceFacts{}, plan.ErrNotEnoughQueues},
		"virtio_net: an old host":                  {unix.EINVAL, "virtio_net: XDP expects header/data in single page, any_header_sg required", deviceFacts{}, plan.ErrNativeUnsupported},
		"the kernel: header split":                 {unix.EBUSY, "unable to install XDP to device using tcp-data-split", deviceFacts{}, plan.ErrOffloadConflict},
		"the kernel: memory of a device":           {unix.EBUSY, "unable to install XDP to device using memory provider", deviceFacts{}, plan.ErrOffloadConflict},
		"ena: the channels":                        {unix.EINVAL, "Failed to set xdp program, the Rx/Tx channel count should be at most half of the maximum allowed channel count", deviceFacts{}, plan.ErrNotEnoughQueues},
		"ice: the MTU":                             {unix.EOPNOTSUPP, "MTU is too large for linear frames and XDP prog does not support frags", deviceFacts{}, plan.ErrMTUTooLarge},
		"igb: the MTU in other words":              {unix.EINVAL, "XDP RX buffer size is too small for the frame size", deviceFacts{}, plan.ErrMTUTooLarge},
		"stmmac: the MTU in yet others":            {unix.EOPNOTSUPP, "Jumbo frames not supported", deviceFacts{}, plan.ErrMTUTooLarge},
		"a driver's own words":                     {unix.EINVAL, "Firmware is too old", deviceFacts{}, plan.ErrNativeRefused},
		"not a word: a large MTU":                  {unix.EINVAL, "", jumbo, plan.ErrMTUTooLarge},
		"not a word: mlx4 says EOPNOTSUPP":         {unix.EOPNOTSUPP, "", jumbo, plan.ErrMTUTooLarge},
		"not a word: LRO":                          {unix.EINVAL, "", deviceFacts{MTU: 1500, Offloads: []string{"rx-lro"}}, plan.ErrOffloadConflict},
		"not a word: more than half of the queues": {unix.EINVAL, "", deviceFacts{MTU: 1500, Combined: 8, Most: 8, Announce: can}, plan.ErrNotEnoughQueues},
		"not a word, and nothing unusual":          {unix.EINVAL, "", deviceFacts{MTU: 1500}, plan.ErrNativeRefused},
		"not a word, an old kernel: EOPNOTSUPP":    {unix.EOPNOTSUPP, "", deviceFacts{MTU: 9000}, plan.ErrNativeUnsupported},
		"not a word: the driver says it has none":  {unix.EINVAL, "", deviceFacts{MTU: 9000, Announce: cannot}, plan.ErrNativeUnsupported},
		"not a word: no memory":                    {unix.ENOMEM, "", deviceFacts{MTU: 1500}, plan.ErrOutOfMemory},
		"an errno of the kernel's own":             {unix.Errno(524), "", deviceFacts{MTU: 1500}, plan.ErrNativeUnsupported},
		"no rights":                                {unix.EPERM, "", jumbo, plan.ErrPermission},
		"the hook is held, whatever else":          {unix.EBUSY, "", jumbo, plan.ErrHookInUse},
	} {
		if got := classifyAttachError(tc.errno, tc.said, true, tc.s, plan.Hook{}, false); !errors.Is(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	if got := classifyAttachError(unix.EEXIST, "", true, deviceFacts{}, plan.Hook{}, true); !errors.Is(got, plan.ErrUpperHasProgram) {
		t.Errorf("a free hook under an interface with a program: %v", got)
	}
	if got := classifyAttachError(unix.EINVAL, "", false, jumbo, plan.Hook{}, false); got != nil {
		t.Errorf("generic mode knows no driver: %v", got)
	}
}

// A note is text beside pins: what somebody else has put there, or another version, must not be in the way.
func TestNotes(t *testing.T) {
	h := newHost(t)
	f := h.folder(h.index)
	if err := os.MkdirAll(f.path, 0o700); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("ä\"", 4<<10)
	s := deviceFacts{MTU: 9000, Offloads: []string{"rx-lro"}}
	if err := f.saveFallbackReason(errors.Join(plan.ErrMTUTooLarge, errors.New(long)), s); err != nil {
		t.Fatal(err)
	}
	got, refused := f.loadFallbackReason()
	if diff := cmp.Diff(s, got); diff != "" || !errors.Is(refused, plan.ErrMTUTooLarge) {
		t.Errorf("read %v (-want +got):\n%s", refused, diff)
	}
	for target, want := range map[string]error{
		"counts":                                 nil,
		`{"cause":"OfTheFuture","message":"so"}`: plan.ErrNativeRefused,
	} {
		if err := errors.Join(os.Remove(f.fallbackReasonPin()), os.Symlink(target, f.fallbackReasonPin())); err != nil {
			t.Fatal(err)
		}
		if _, refused := f.loadFallbackReason(); !errors.Is(refused, want) {
			t.Errorf("%s: %v", target, refused)
		}
	}
	h.cleanup(t)
	h.expectNothingPinned(t)
}

// The kernel does not look up a name of more than 255 bytes, which the target of the symbolic link is for it.
func TestCleanupOfALongFallbackReason(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Generic)
	if err := h.folder(h.index).saveFallbackReason(errors.New(strings.Repeat("x", longestMessage)), deviceFacts{}); err != nil {
		t.Fatal(err)
	}
	h.cleanup(t)
	h.expectUnhooked(t)
	h.expectNothingPinned(t)
}

// TestFallbackReasonFormat: a fallbackReason is in the pins of running systems, so its format must not change.
func TestFallbackReasonFormat(t *testing.T) {
	const stored = `{"cause":"MTUTooLarge","message":"x: the MTU is too large for native XDP","situation":{"mtu":9000,"rx":1,"tx":2,"combined":4,"most":8,` +
		`"offloads":["rx-lro"],"announce":"can","members":[5]}}`
	f := folder{path: t.TempDir()}
	facts := deviceFacts{MTU: 9000, Rx: 1, Tx: 2, Combined: 4, Most: 8, Offloads: []string{"rx-lro"}, Announce: can, Members: []int{5}}
	if err := f.saveFallbackReason(fmt.Errorf("x: %w", plan.ErrMTUTooLarge), facts); err != nil {
		t.Fatal(err)
	}
	if text, err := os.Readlink(f.path + "/refusal"); err != nil || text != stored {
		t.Errorf("%s, %v, want %s", text, err, stored)
	}
	then, refused := f.loadFallbackReason()
	if diff := cmp.Diff(facts, then); diff != "" || !errors.Is(refused, plan.ErrMTUTooLarge) {
		t.Errorf("%v (-stored +loaded):\n%s", refused, diff)
	}
}
