package datapath

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/bpf"
	"github.com/xdp-operator/xdp-operator/test/util/bpffs"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

const (
	bootID = "7f1d1c8e-0000-4000-8000-000000000001"
	// A name as long as the kernel allows, with all that it allows.
	nasty = "eth0.100é-abcd"
)

// host is a network namespace with a veth pair, on one end of which frames are counted and from the other sent.
type host struct {
	*Datapath
	bpffs string
	net   *netns.Namespace
	index int // of the counted end, which is called nasty
	send  *frames.Sender
	sent  traffic.Totals
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{bpffs: bpffs.Mount(t), net: netns.New(t)}
	h.open(t)
	var peer int
	h.index, peer = h.net.Veth(t, nasty, "peer")
	h.send = h.sender(t, peer)
	return h
}

// open opens the datapath, as an agent does that starts.
func (h *host) open(t *testing.T) {
	t.Helper()
	d, err := Open(h.bpffs, bootID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	h.Datapath = d
}

func (h *host) sender(t *testing.T, index int) *frames.Sender {
	t.Helper()
	var s *frames.Sender
	h.net.Do(func() {
		var err error
		if s, err = frames.NewSender(index); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { s.Close() })
	return s
}

func (h *host) attach(index int, mode plan.Mode) (err error) {
	h.net.Do(func() { err = h.Attach(plan.Attachment{Index: index, Name: nasty, Mode: mode}) })
	return err
}

func (h *host) mustAttach(t *testing.T, mode plan.Mode) {
	t.Helper()
	if err := h.attach(h.index, mode); err != nil {
		t.Fatal(err)
	}
}

// traffic sends n frames each of many kinds.
func (h *host) traffic(t *testing.T, n int) {
	t.Helper()
	all := frames.All()
	for _, f := range append(frames.Common(), all[10:40]...) {
		if err := h.send.Send(f.Data, n); err != nil {
			t.Fatal(err)
		}
		h.sent[f.Class] = h.sent[f.Class].Plus(traffic.Counts{Packets: uint64(n), Bytes: uint64(n * len(f.Data))})
	}
}

// expectCounted waits until as many frames were counted as sent, and compares every class.
func (h *host) expectCounted(t *testing.T) {
	t.Helper()
	var reading traffic.Reading
	want := h.sent.Sum().Packets
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		reading = h.onlyReading(t)
		if reading.Totals.Sum().Packets >= want || time.Now().After(deadline) {
			break
		}
	}
	if diff := cmp.Diff(listed(h.sent), listed(reading.Totals)); diff != "" {
		t.Fatalf("not what was sent (-sent +counted):\n%s", diff)
	}
}

func listed(t traffic.Totals) map[string]traffic.Counts {
	m := map[string]traffic.Counts{}
	for class, counts := range t.NonZero() {
		m[class.String()] = counts
	}
	return m
}

func (h *host) onlyReading(t *testing.T) traffic.Reading {
	t.Helper()
	readings, err := h.Read()
	if err != nil {
		t.Fatal(err)
	}
	if len(readings) != 1 {
		t.Fatalf("%d readings: %v", len(readings), readings)
	}
	return readings[0]
}

func (h *host) attached(t *testing.T) []plan.Attachment {
	t.Helper()
	var attached []plan.Attachment
	h.net.Do(func() {
		var err error
		if attached, err = h.Attached(); err != nil {
			t.Fatal(err)
		}
	})
	return attached
}

func (h *host) onlyAttached(t *testing.T) plan.Attachment {
	t.Helper()
	attached := h.attached(t)
	if len(attached) != 1 {
		t.Fatalf("%d attachments: %+v", len(attached), attached)
	}
	return attached[0]
}

// hook returns what rtnetlink says is attached to the interface.
func (h *host) hook(t *testing.T, index int) netlink.LinkXdp {
	t.Helper()
	var hook netlink.LinkXdp
	h.net.Do(func() {
		l, err := netlink.LinkByIndex(index)
		if err != nil {
			t.Fatal(err)
		}
		if xdp := l.Attrs().Xdp; xdp != nil {
			hook = *xdp
		}
	})
	return hook
}

const (
	drv = 1 // XDP_ATTACHED_DRV and XDP_ATTACHED_SKB of include/uapi/linux/if_link.h
	skb = 2
)

// expectNothingPinned looks at the whole bpffs, in which the kernel itself may have put its *.debug.
func (h *host) expectNothingPinned(t *testing.T) {
	t.Helper()
	left, err := filepath.Glob(h.bpffs + "/*")
	if err != nil {
		t.Fatal(err)
	}
	left = slices.DeleteFunc(left, func(name string) bool { return strings.HasSuffix(name, ".debug") })
	if len(left) != 0 {
		pins, _ := filepath.Glob(h.root() + "/*/*/*")
		t.Errorf("left in the bpffs: %v, pins %v", left, pins)
	}
}

func (h *host) expectUnhooked(t *testing.T) {
	t.Helper()
	if hook := h.hook(t, h.index); hook.Attached {
		t.Errorf("a program is attached: %+v", hook)
	}
}

// passes is a program of somebody else.
func passes(t *testing.T) *ebpf.Program {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreign", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return program
}

// otherVersion makes Attach load a program with another tag that counts alike.
func (h *host) otherVersion(t *testing.T) {
	t.Helper()
	h.spec = h.spec.Copy()
	program := h.spec.Programs["count_frame"]
	nop := asm.Mov.Reg(asm.R1, asm.R1)
	program.Instructions = append(program.Instructions[:1:1], append(asm.Instructions{nop}, program.Instructions[1:]...)...)
}

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
	if names := h.pins(t); !cmp.Equal(names, []string{"counts", "link", "program"}) {
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
	if names := h.pins(t); !cmp.Equal(names, []string{"counts", "link", "program"}) {
		t.Errorf("pins after the update: %v", names)
	}
	h.traffic(t, 3)
	h.expectCounted(t)
}

// pins lists the pins of the only folder.
func (h *host) pins(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(h.folder(h.index).path)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
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

func TestHalfMadeFolders(t *testing.T) {
	for name, test := range map[string]struct {
		remove []string // of the pins of a whole attachment
		want   func(whole plan.Attachment) []plan.Attachment
		attach error
	}{
		"killed after the folder was made": {
			remove: []string{"link", "program", "counts"},
			want:   func(plan.Attachment) []plan.Attachment { return nil },
		},
		"killed after the map was pinned": {
			remove: []string{"link", "program"},
			want:   func(a plan.Attachment) []plan.Attachment { return []plan.Attachment{{Map: a.Map, Pin: a.Pin}} },
			attach: plan.ErrPending,
		},
		"killed after the program was pinned, or the link unpinned by hand": {
			remove: []string{"link"},
			want:   func(a plan.Attachment) []plan.Attachment { return []plan.Attachment{{Map: a.Map, Pin: a.Pin}} },
			attach: plan.ErrPending,
		},
		"the program unpinned by hand": {
			remove: []string{"program"},
			want: func(a plan.Attachment) []plan.Attachment {
				a.Outdated = true
				return []plan.Attachment{a}
			},
		},
		"the map unpinned by hand": {
			remove: []string{"counts"},
			want:   func(plan.Attachment) []plan.Attachment { return nil },
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.mustAttach(t, plan.Native)
			whole := h.onlyAttached(t)
			for _, pin := range test.remove {
				if err := os.Remove(filepath.Join(whole.Pin, pin)); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(test.want(whole), h.attached(t)); diff != "" {
				t.Fatalf("attached (-want +got):\n%s", diff)
			}
			if _, err := h.Read(); err != nil {
				t.Fatal(err)
			}
			h.waitUnhooked(t, test.want(whole))
			if err := h.attach(h.index, plan.Native); !errors.Is(err, test.attach) {
				t.Fatal(err)
			}
			for _, a := range h.attached(t) {
				if test.attach == nil && (a.Index != h.index || a.Outdated) {
					t.Errorf("attached: %+v", a)
				}
				if err := h.Detach(a); err != nil {
					t.Fatal(err)
				}
			}
			h.mustAttach(t, plan.Native)
			h.traffic(t, 2)
			h.expectCounted(t)
		})
	}
}

// waitUnhooked waits for what the kernel does some time after a link was unpinned.
func (h *host) waitUnhooked(t *testing.T, expected []plan.Attachment) {
	t.Helper()
	if len(expected) == 1 && expected[0].Index != 0 {
		return
	}
	for deadline := time.Now().Add(5 * time.Second); h.hook(t, h.index).Attached; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the kernel does not detach")
		}
	}
}

func TestForeignPinsStopNobody(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	want := h.attached(t)
	pin := func(name string, object interface{ Pin(string) error }) {
		t.Helper()
		path := filepath.Join(h.layoutPins(h.current()), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := object.Pin(path); err != nil {
			t.Fatal(err)
		}
	}
	pin("notes/counts", someMap(t))
	pin("0/counts", someMap(t))
	pin("900/counts", passes(t))
	pin("901/counts", someMap(t))
	pin("902", someMap(t))
	if diff := cmp.Diff(want, h.attached(t)); diff != "" {
		t.Errorf("attached (-want +got):\n%s", diff)
	}
	h.traffic(t, 2)
	h.expectCounted(t)
	if _, err := os.Stat(filepath.Join(h.layoutPins(h.current()), "901/counts")); err != nil {
		t.Errorf("what is not ours was touched: %v", err)
	}
}

// someMap is a map of somebody else.
func someMap(t *testing.T) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// The kernel calls a folder in the place of a pin a matter of rights, which it is not.
func TestFolderInThePlaceOfAPin(t *testing.T) {
	for _, pin := range []string{"link", "program"} {
		t.Run(pin, func(t *testing.T) {
			h := newHost(t)
			h.mustAttach(t, plan.Native)
			h.traffic(t, 2)
			h.expectCounted(t)
			path := filepath.Join(h.folder(h.index).path, pin)
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
				t.Fatal(err)
			}
			if pin == "link" {
				h.waitUnhooked(t, h.attached(t))
				if a := h.onlyAttached(t); a.Index != 0 {
					t.Errorf("attached: %+v", a)
				}
			} else if a := h.onlyAttached(t); a.Index != h.index || !a.Outdated {
				t.Errorf("attached: %+v", a)
			}
			h.expectCounted(t)
			if err := h.Detach(h.onlyAttached(t)); err != nil {
				t.Fatal(err)
			}
			h.expectNothingPinned(t)
			h.sent = traffic.Totals{}
			h.mustAttach(t, plan.Native)
			h.traffic(t, 2)
			h.expectCounted(t)
		})
	}
}

func TestForeignPinInTheWay(t *testing.T) {
	h := newHost(t)
	if err := os.MkdirAll(h.folder(h.index).path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := someMap(t).Pin(h.folder(h.index).counts()); err != nil {
		t.Fatal(err)
	}
	if err := h.attach(h.index, plan.Auto); !errors.Is(err, errForeign) {
		t.Errorf("attached over it: %v", err)
	}
	h.expectUnhooked(t)
}

func TestOpenWhereNoBPFFSIs(t *testing.T) {
	for name, path := range map[string]string{"a directory": t.TempDir(), "nothing": filepath.Join(t.TempDir(), "none")} {
		if _, err := Open(path, bootID); !errors.Is(err, plan.ErrBPFFSNotMounted) {
			t.Errorf("%s: %v", name, err)
		}
	}
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
	for _, pin := range []string{"", "/etc", h.layoutPins(h.current()), h.layoutPins(h.current()) + "/..", h.root() + "/v0/7"} {
		if err := h.Detach(plan.Attachment{Pin: pin}); err == nil {
			t.Errorf("detached %q", pin)
		}
	}
	if err := h.Cleanup(); err != nil {
		t.Errorf("clean up of nothing: %v", err)
	}
}

func TestCleanup(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	bridge := h.net.Bridge(t, "br0")
	if err := h.attach(bridge, plan.Auto); err != nil {
		t.Fatal(err)
	}
	// As if one were of another layout, and one half made.
	old := filepath.Join(h.root(), "v0")
	if err := os.Rename(h.layoutPins(h.current()), old); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(old, strconv.Itoa(bridge), "program")); err != nil {
		t.Fatal(err)
	}
	if err := someMap(t).Pin(filepath.Join(old, "a_map")); err != nil {
		t.Fatal(err)
	}
	if err := someMap(t).Pin(filepath.Join(h.bpffs, "somebody_elses")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h.Cleanup(); err != nil {
			t.Fatal(err)
		}
	}
	h.expectUnhooked(t)
	if hook := h.hook(t, bridge); hook.Attached {
		t.Errorf("the other layout's program is still attached: %+v", hook)
	}
	if err := os.Remove(filepath.Join(h.bpffs, "somebody_elses")); err != nil {
		t.Error(err)
	}
	h.expectNothingPinned(t)
}

func TestDetachedMapsAreNotHeld(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Native)
	a := h.onlyAttached(t)
	h.onlyReading(t)
	if err := h.Detach(a); err != nil {
		t.Fatal(err)
	}
	if readings, err := h.Read(); err != nil || len(readings) != 0 {
		t.Fatalf("readings %v, error %v", readings, err)
	}
	if len(h.tables) != 0 {
		t.Errorf("still mapped: %d tables", len(h.tables))
	}
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

// withCapabilities runs fn in the host's network namespace on a thread that has these capabilities only.
func (h *host) withCapabilities(t *testing.T, capabilities []int, fn func()) {
	t.Helper()
	var set [2]unix.CapUserData
	for _, c := range capabilities {
		set[c/32].Effective |= 1 << (c % 32)
		set[c/32].Permitted |= 1 << (c % 32)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocks: the thread ends with what it lost
		if err := unix.Setns(int(h.net.File().Fd()), unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		if err := unix.Capset(&header, &set[0]); err != nil {
			t.Error(err)
			return
		}
		fn()
	}()
	<-done
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
			d.tags = d.findTags
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
			if err := d.Cleanup(); err != nil {
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
