// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// setMTU sets the MTU of both ends, as one does who changes that of a network.
func (h *host) setMTU(t *testing.T, mtu int) {
	t.Helper()
	if err := h.tryMTU(t, mtu); err != nil {
		t.Fatal(err)
	}
}

func (h *host) tryMTU(t *testing.T, mtu int) (err error) {
	t.Helper()
	h.net.Do(func() {
		for _, name := range []string{nasty, "peer"} {
			l, missing := netlink.LinkByName(name)
			if missing != nil {
				t.Fatal(missing)
			}
			if refused := netlink.LinkSetMTU(l, mtu); refused != nil {
				err = fmt.Errorf("set the MTU of %s to %d: %w", name, mtu, refused)
				return
			}
		}
	})
	return err
}

// knowsFragments reports whether the kernel knows programs for many buffers (Linux 5.18).
func knowsFragments(t *testing.T) bool {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, Flags: unix.BPF_F_XDP_HAS_FRAGS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
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

// jumbo sends frames of up to that many bytes behind the Ethernet header.
func (h *host) jumbo(t *testing.T, mtu int) {
	t.Helper()
	for _, f := range frames.Common() {
		for _, size := range []int{1600, 3900, 4100, 8100, mtu + 14} { // of one page and more, at most what the MTU allows
			if size > mtu+14 {
				continue
			}
			data := append(bytes.Clone(f.Data), make([]byte, size-len(f.Data))...)
			if err := h.send.Send(data, 3); err != nil {
				t.Fatal(err)
			}
			h.sent[f.Class] = h.sent[f.Class].Plus(traffic.Counts{Packets: 3, Bytes: uint64(3 * size)})
		}
	}
}

// expectVariant looks at what is attached, and that it is in the mode that the variant is for.
func (h *host) expectVariant(t *testing.T, v variant) plan.Attachment {
	t.Helper()
	a := h.onlyAttached(t)
	want, err := h.tags.of(v)
	if err != nil {
		t.Fatal(err)
	}
	if _, tag, err := h.folder(a.Index).program(); err != nil || tag != want {
		t.Fatalf("the pinned program has the tag %s (%v), %s would be %s", tag, err, v, want)
	}
	mode := uint32(drv)
	if slices.Contains(variantsFor[plan.Generic], v) {
		mode = skb
	}
	if hook := h.hook(t, h.index); a.Outdated || hook.AttachMode != mode || hook.ProgId != a.Program {
		t.Fatalf("%+v, the hook says %+v", a, hook)
	}
	return a
}

func TestJumboFramesAreCountedNatively(t *testing.T) {
	for _, mode := range []plan.Mode{plan.Native, plan.Auto} {
		t.Run(string(mode), func(t *testing.T) {
			h := newHost(t)
			h.setMTU(t, 9000)
			if !knowsFragments(t) {
				h.expectNoJumboNatively(t)
				return
			}
			h.mustAttach(t, mode)
			before := h.expectVariant(t, manyBuffers)
			h.jumbo(t, 9000)
			h.traffic(t, 3)
			h.expectCounted(t)

			// A restarted agent leaves it alone.
			h.open(t)
			h.mustAttach(t, mode)
			if diff := cmp.Diff(before, h.expectVariant(t, manyBuffers)); diff != "" {
				t.Errorf("after a restart (-before +after):\n%s", diff)
			}
		})
	}
}

func TestJumboFramesAreCountedGenerically(t *testing.T) {
	h := newHost(t)
	h.setMTU(t, 9000)
	h.mustAttach(t, plan.Generic)
	if hook := h.hook(t, h.index); hook.AttachMode != skb {
		t.Fatalf("hook %+v", hook)
	}
	h.jumbo(t, 9000)
	h.expectCounted(t)
}

func TestProgramFollowsTheMTU(t *testing.T) {
	h := newHost(t)
	h.setMTU(t, 9000)
	if !knowsFragments(t) {
		h.expectNoJumboNatively(t)
		h.setMTU(t, 1500)
		h.mustAttach(t, plan.Auto) // the mode of what is there is not judged
		h.traffic(t, 3)
		h.expectCounted(t)
		return
	}
	h.mustAttach(t, plan.Native)
	large := h.expectVariant(t, manyBuffers)
	h.jumbo(t, 9000)

	// Smaller: the cheaper program will do.
	h.setMTU(t, 1500)
	if a := h.onlyAttached(t); !a.Outdated {
		t.Fatalf("a smaller MTU was not seen: %+v", a)
	}
	h.mustAttach(t, plan.Native)
	small := h.expectVariant(t, oneBuffer)
	if small.Map != large.Map {
		t.Errorf("%+v after %+v: another map", small, large)
	}
	h.traffic(t, 3)

	// Larger again, which veth allows since it was attached when the MTU was large; in Linux 6.12 it does not.
	if err := h.tryMTU(t, 9000); errors.Is(err, unix.EINVAL) {
		h.traffic(t, 3)
		h.expectCounted(t)
		h.expectPins(t)
		return
	} else if err != nil {
		t.Fatal(err)
	}
	if a := h.onlyAttached(t); !a.Outdated {
		t.Fatalf("a larger MTU was not seen: %+v", a)
	}
	h.mustAttach(t, plan.Native)
	if a := h.expectVariant(t, manyBuffers); a.Map != large.Map {
		t.Errorf("%+v after %+v: another map", a, large)
	}
	h.jumbo(t, 9000)
	h.expectCounted(t)
	h.expectPins(t)
}

func (h *host) expectPins(t *testing.T) {
	t.Helper()
	if names := h.pins(t); !cmp.Equal(names, []string{"counts", "features", "link", "program"}) {
		t.Errorf("pins: %v", names)
	}
}

// The driver does not let the MTU grow over what the attached program can take; the counting goes on.
func TestMTUIsNotRaisedOverTheAttachedProgram(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	h.net.Do(func() {
		peer, err := netlink.LinkByName("peer")
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetMTU(peer, 9000); !errors.Is(err, unix.EINVAL) {
			t.Errorf("the peer's MTU: %v", err)
		}
	})
	h.expectVariant(t, oneBuffer)
	h.traffic(t, 3)
	h.expectCounted(t)
}

// On kernels before 5.18 there is only one variant.
func TestLargeMTUWithoutFragments(t *testing.T) {
	h := newHost(t)
	h.setMTU(t, 9000)
	h.withoutFragments()
	h.expectNoJumboNatively(t)
}

// expectNoJumboNatively attaches to an interface whose MTU is 9000 where one buffer is all that a program can take.
func (h *host) expectNoJumboNatively(t *testing.T) {
	t.Helper()
	if err := h.attach(h.index, plan.Native); !errors.Is(err, plan.ErrMTUTooLarge) {
		t.Errorf("native: %v", err)
	}
	h.expectNothingPinned(t)
	h.mustAttach(t, plan.Auto)
	if hook := h.hook(t, h.index); hook.AttachMode != skb {
		t.Errorf("hook %+v", hook)
	}
	if a := h.onlyAttached(t); a.Outdated {
		t.Errorf("%+v", a)
	}
	h.jumbo(t, 9000)
	h.expectCounted(t)
}
