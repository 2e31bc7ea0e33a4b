// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
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
	return newHostOn(t, bpffs.Mount(t))
}

// newHostOn makes a host that uses the bpffs, which other hosts can use too.
func newHostOn(t *testing.T, bpffs string) *host {
	t.Helper()
	h := &host{bpffs: bpffs, net: netns.New(t)}
	h.open(t)
	var peer int
	h.index, peer = h.net.Veth(t, nasty, "peer")
	h.send = h.sender(t, peer)
	return h
}

// open opens the datapath, as an agent does that starts.
func (h *host) open(t *testing.T) {
	t.Helper()
	var d *Datapath
	h.net.Do(func() {
		var err error
		if d, err = Open(h.bpffs, bootID); err != nil {
			t.Fatal(err)
		}
	})
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

// cleanup cleans up, and returns the folders that were left to other network namespaces.
func (h *host) cleanup(t *testing.T) (others []string) {
	t.Helper()
	h.net.Do(func() {
		var err error
		if others, err = h.Cleanup(); err != nil {
			t.Fatal(err)
		}
	})
	return others
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
		pins, _ := filepath.Glob(h.root() + "/*/*/*/*")
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
