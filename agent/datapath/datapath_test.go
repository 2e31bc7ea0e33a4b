// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/bpf"
)

func TestExactCounts(t *testing.T) {
	for name, mode := range map[string]plan.Mode{"natively": plan.Native, "generically": plan.Generic, "automatically": plan.Auto} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.mustAttach(t, mode)
			h.traffic(t, 700) // more than the 256 that a veth's ring holds
			h.expectCounted(t)

			want := map[plan.Mode]uint32{plan.Native: drv, plan.Auto: drv, plan.Generic: skb}[mode]
			a, hook := h.onlyAttached(t), h.hook(t, h.index)
			if hook.AttachMode != want || hook.ProgId != a.Program {
				t.Errorf("attached is %+v, the hook says %+v", a, hook)
			}
			if r := h.onlyReading(t); r.Index != h.index || r.Map != (traffic.MapID{Boot: bootID, ID: a.Map}) {
				t.Errorf("read index %d of map %v, attached is %+v", r.Index, r.Map, a)
			}
			if err := h.Detach(a); err != nil {
				t.Fatal(err)
			}
			h.expectUnhooked(t)
			h.expectNothingPinned(t)
		})
	}
}

func TestRestart(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Auto)
	h.traffic(t, 10)
	h.expectCounted(t)
	before := h.onlyAttached(t)

	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h.traffic(t, 10) // with nobody there
	h.open(t)
	h.mustAttach(t, plan.Auto)
	if diff := cmp.Diff(before, h.onlyAttached(t)); diff != "" {
		t.Errorf("adopted otherwise than left (-left +adopted):\n%s", diff)
	}
	h.traffic(t, 10)
	h.expectCounted(t)
}

func TestAttachAgainChangesNothing(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	before := h.onlyAttached(t)
	for _, mode := range []plan.Mode{plan.Native, plan.Auto, plan.Generic} { // the mode of what is there is not judged
		h.mustAttach(t, mode)
		if diff := cmp.Diff(before, h.onlyAttached(t)); diff != "" {
			t.Errorf("attached again in mode %s (-before +after):\n%s", mode, diff)
		}
	}
	if before.Outdated || before.Index != h.index {
		t.Errorf("attached: %+v", before)
	}
}

func TestUpdateKeepsTheCounts(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	tag := h.ProgramTag()
	h.traffic(t, 10)
	h.expectCounted(t)
	before := h.onlyAttached(t)

	h.open(t)
	h.otherVersion(t)
	if len(tag) != 16 || h.ProgramTag() == tag {
		t.Fatalf("tag %q after %q", h.ProgramTag(), tag)
	}
	if a := h.onlyAttached(t); !a.Outdated {
		t.Fatalf("not outdated: %+v", a)
	}
	h.mustAttach(t, plan.Native)
	after := h.onlyAttached(t)
	if after.Program == before.Program || after.Map != before.Map || after.Outdated || h.hook(t, h.index).ProgId != after.Program {
		t.Errorf("updated to %+v from %+v, the hook says %+v", after, before, h.hook(t, h.index))
	}
	h.traffic(t, 10)
	h.expectCounted(t)
	if names := h.pins(t); !cmp.Equal(names, []string{"counts", "features", "link", "program"}) {
		t.Errorf("pins after the update: %v", names)
	}
}

func TestUpdateInterruptedBeforeTheProgramWasPinned(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	f := h.folder(h.index)
	l, err := openLink(f.linkPin())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	counts, _, err := h.counts(f)
	if err != nil {
		t.Fatal(err)
	}
	defer counts.Close()
	program, err := bpf.NewProgram(h.spec, counts)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if err := l.Update(program); err != nil {
		t.Fatal(err)
	}
	if err := program.Pin(f.programPin() + "_new"); err != nil {
		t.Fatal(err)
	}
	if !h.onlyAttached(t).Outdated {
		t.Error("not seen that the program is not the pinned one")
	}
	h.mustAttach(t, plan.Native)
	if a := h.onlyAttached(t); a.Outdated {
		t.Errorf("still outdated: %+v", a)
	}
	if names := h.pins(t); !cmp.Equal(names, []string{"counts", "features", "link", "program"}) {
		t.Errorf("pins after the update: %v", names)
	}
	h.traffic(t, 3)
	h.expectCounted(t)
}

func TestInterfaceDeleted(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	h.traffic(t, 10)
	h.expectCounted(t)
	before := h.onlyAttached(t)

	h.net.Delete(t, nasty)
	want := plan.Attachment{Map: before.Map, Pin: before.Pin}
	if diff := cmp.Diff(want, h.onlyAttached(t)); diff != "" {
		t.Errorf("attached (-want +got):\n%s", diff)
	}
	h.expectCounted(t)
	if r := h.onlyReading(t); r.Index != 0 {
		t.Errorf("reading of interface %d", r.Index)
	}
	for range 2 {
		if err := h.Detach(before); err != nil {
			t.Fatal(err)
		}
	}
	h.expectNothingPinned(t)
}

func TestIndexReusedBeforeTheCountsWereSaved(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	h.traffic(t, 10)
	h.expectCounted(t)
	h.net.Delete(t, nasty)
	h.net.Add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "reused", Index: h.index}})

	if err := h.attach(h.index, plan.Auto); !errors.Is(err, plan.ErrPending) {
		t.Fatalf("attached over counts that are not saved: %v", err)
	}
	h.expectCounted(t) // and they are still there
	if err := h.Detach(h.onlyAttached(t)); err != nil {
		t.Fatal(err)
	}
	h.mustAttach(t, plan.Auto)
	if a := h.onlyAttached(t); a.Index != h.index {
		t.Errorf("attached: %+v", a)
	}
	if r := h.onlyReading(t); !r.Totals.IsZero() {
		t.Errorf("the new interface starts with counts: %v", listed(r.Totals))
	}
}

func TestRenameAndDownKeepCounting(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	before := h.onlyAttached(t)
	h.traffic(t, 10)
	h.net.Rename(t, nasty, "renamed")
	h.net.Ready(t, "renamed", "peer")
	h.traffic(t, 10)
	h.net.Do(func() {
		l, err := netlink.LinkByName("renamed")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(netlink.LinkSetDown(l), netlink.LinkSetUp(l)); err != nil {
			t.Fatal(err)
		}
	})
	h.net.Ready(t, "renamed", "peer")
	h.traffic(t, 10)
	h.expectCounted(t)
	if diff := cmp.Diff(before, h.onlyAttached(t)); diff != "" {
		t.Errorf("attached otherwise (-before +after):\n%s", diff)
	}
}

func TestInterfaceThatIsDown(t *testing.T) {
	h := newHost(t)
	h.net.Do(func() {
		l, err := netlink.LinkByIndex(h.index)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetDown(l); err != nil {
			t.Fatal(err)
		}
	})
	h.mustAttach(t, plan.Native)
	h.net.Up(t, nasty)
	h.net.Ready(t, nasty, "peer")
	h.traffic(t, 2)
	h.expectCounted(t)
}

func TestNothingAttached(t *testing.T) {
	h := newHost(t)
	readings, err := h.Read()
	if len(readings) != 0 || err != nil {
		t.Errorf("readings %v, error %v", readings, err)
	}
	if a := h.attached(t); len(a) != 0 {
		t.Errorf("attached %+v", a)
	}
	if err := h.Detach(plan.Attachment{Pin: h.folder(7).path}); err != nil {
		t.Errorf("detach of nothing: %v", err)
	}
	for _, pin := range []string{"", "/etc", h.layoutPins(h.current()), h.layoutPins(h.current()) + "/..", h.root() + "/v0/7", h.versionPins(bpf.Layout) + "/7", h.versionPins(bpf.Layout) + "/n0/7"} {
		if err := h.Detach(plan.Attachment{Pin: pin}); err == nil {
			t.Errorf("detached %q", pin)
		}
	}
	h.cleanup(t)
}

func TestSnapshot(t *testing.T) {
	for _, l := range layouts() {
		const cpus = 3
		counts := make(table, cpus*2*l.slots)
		var want traffic.Totals
		for cpu := range cpus {
			for class, slot := range l.slot {
				at := 2 * (cpu*l.slots + slot)
				counts[at], counts[at+1] = uint64(cpu+class), uint64(100*cpu+class)
				want[class] = want[class].Plus(traffic.Counts{Packets: counts[at], Bytes: counts[at+1]})
			}
		}
		var got traffic.Totals
		l.snapshot(counts, &got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if n := testing.AllocsPerRun(10, func() { l.snapshot(counts, &got) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func BenchmarkSnapshot(b *testing.B) {
	l := layouts()[0]
	counts := make(table, 2*2*l.slots)
	var totals traffic.Totals
	b.ReportAllocs()
	for b.Loop() {
		l.snapshot(counts, &totals)
	}
}

func TestCapabilities(t *testing.T) {
	enough := []int{unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON}
	t.Run("the three are enough for everything", func(t *testing.T) {
		h := newHost(t)
		h.withCapabilities(t, enough, func() {
			d, err := Open(h.bpffs, bootID)
			if err != nil {
				t.Error(err)
				return
			}
			defer d.Close()
			a := plan.Attachment{Index: h.index, Name: nasty, Mode: plan.Auto}
			if err := d.Attach(a); err != nil {
				t.Error(err)
			}
			if attached, err := d.Attached(); err != nil || len(attached) != 1 || attached[0].Outdated {
				t.Errorf("attached %+v, error %v", attached, err)
			}
			h := host{Datapath: d}
			h.otherVersion(t)
			d.tags = newTags(&d.spec)
			if err := d.Attach(a); err != nil {
				t.Errorf("update: %v", err)
			}
			if readings, err := d.Read(); err != nil || len(readings) != 1 {
				t.Errorf("readings %v, error %v", readings, err)
			}
			attached, err := d.Attached()
			if err != nil || len(attached) != 1 || attached[0].Outdated {
				t.Errorf("attached %+v, error %v", attached, err)
				return
			}
			if err := d.Detach(attached[0]); err != nil {
				t.Error(err)
			}
			if _, err := d.Cleanup(); err != nil {
				t.Error(err)
			}
		})
		h.expectUnhooked(t)
		h.expectNothingPinned(t)
	})
	for i, name := range []string{"without BPF", "without NET_ADMIN", "without PERFMON"} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			few := slices.Delete(slices.Clone(enough), i, i+1)
			h.withCapabilities(t, few, func() {
				if err := h.Attach(plan.Attachment{Index: h.index, Name: nasty, Mode: plan.Auto}); !errors.Is(err, plan.ErrPermission) {
					t.Error(err)
				}
			})
			h.expectUnhooked(t)
			h.expectNothingPinned(t)
		})
	}
}
