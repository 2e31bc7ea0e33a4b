// SPDX-License-Identifier: Apache-2.0

package features

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/agent/datapath"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/bpf" //nolint:depguard // what the kernel makes of the program itself
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
	"github.com/xdp-operator/xdp-operator/test/util/bpffs"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

// record writes a finding to the output of the tests. lacking is nil if the kernel supports the feature.
func record(t *testing.T, feature string, lacking error) {
	t.Helper()
	f := report.Finding{Feature: feature, Is: lacking == nil}
	if lacking != nil {
		f.Why = lacking.Error()
	}
	if err := report.Write(os.Stdout, report.Line{Finding: f}); err != nil {
		t.Fatal(err)
	}
}

// counts attaches in the mode to one end of a veth pair with the MTU, sends frames of this size from the other end, and checks
// that all are counted. It returns the error of attaching.
func counts(t *testing.T, mode plan.Mode, mtu int) error {
	t.Helper()
	n := netns.New(t)
	index, peer := n.Veth(t, "eth0", "peer")
	u, err := datapath.OpenUnpinned("boot")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	var send *frames.Sender
	n.Do(func() {
		for _, name := range []string{"eth0", "peer"} {
			l, err := netlink.LinkByName(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := netlink.LinkSetMTU(l, mtu); err != nil {
				t.Fatal(err)
			}
		}
		if send, err = frames.NewSender(peer); err != nil {
			t.Fatal(err)
		}
	})
	defer send.Close()
	n.Do(func() { err = u.Attach(plan.Attachment{Index: index, Name: "eth0", Mode: mode}) })
	if err != nil {
		return err
	}
	var want traffic.Totals
	for _, f := range frames.Common() {
		data := append(bytes.Clone(f.Data), make([]byte, mtu+14-len(f.Data))...)
		if err := send.Send(data, 5); err != nil {
			t.Fatal(err)
		}
		want[f.Class] = want[f.Class].Plus(traffic.Counts{Packets: 5, Bytes: uint64(5 * len(data))})
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		readings, err := u.Read()
		if err != nil || len(readings) != 1 {
			t.Fatalf("read %v, error %v", readings, err)
		}
		if readings[0].Totals == want {
			return nil
		}
		if time.Now().After(deadline) {
			t.Fatalf("sent %v, counted %v", want.Sum(), readings[0].Totals.Sum())
		}
	}
}

func TestGeneric(t *testing.T) {
	if err := errors.Join(counts(t, plan.Generic, 1500), counts(t, plan.Generic, 9000)); err != nil {
		t.Fatal(err)
	}
	record(t, "Generic", nil)
}

func TestNativeOnVeth(t *testing.T) {
	if err := counts(t, plan.Native, 1500); err != nil {
		t.Fatal(err)
	}
	record(t, "NativeVeth", nil)
}

func TestNativeJumboFrames(t *testing.T) {
	err := counts(t, plan.Native, 9000)
	if err != nil && !errors.Is(err, plan.ErrMTUTooLarge) {
		t.Fatal(err)
	}
	record(t, "NativeJumbo", err)
}

// TestNativeOnVirtio uses the network card of the emulator. The gateway behind it answers ARP.
func TestNativeOnVirtio(t *testing.T) {
	const card = "eth0"
	if os.Getenv(report.Guest) == "" {
		t.Fatal("this test attaches to eth0: it is for make test-kernels to run")
	}
	l, err := netlink.LinkByName(card)
	if err != nil {
		t.Fatalf("%s of the emulator: %v", card, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
	u, err := datapath.OpenUnpinned("boot")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := u.Attach(plan.Attachment{Index: l.Attrs().Index, Name: card, Mode: plan.Native}); err != nil {
		record(t, "NativeVirtio", err)
		t.Fatal(err)
	}
	send, err := frames.NewSender(l.Attrs().Index)
	if err != nil {
		t.Fatal(err)
	}
	defer send.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err := send.Send(whoHas(l.Attrs().HardwareAddr, net.IPv4(10, 0, 2, 15), net.IPv4(10, 0, 2, 2)), 1); err != nil {
			t.Fatal(err)
		}
		readings, err := u.Read()
		if err != nil || len(readings) != 1 {
			t.Fatalf("read %v, error %v", readings, err)
		}
		if readings[0].Totals[traffic.ClassARP].Packets > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no answer is counted")
		}
	}
	record(t, "NativeVirtio", nil)
}

// whoHas is an ARP request.
func whoHas(from net.HardwareAddr, sender, target net.IP) []byte {
	var f bytes.Buffer
	f.Write([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Write(from)
	f.Write([]byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1})
	f.Write(from)
	f.Write(sender.To4())
	f.Write(make([]byte, 6))
	f.Write(target.To4())
	return f.Bytes()
}

// program loads the counting program with the map.
func program(t *testing.T, spec *ebpf.CollectionSpec, counts *ebpf.Map) *ebpf.Program {
	t.Helper()
	p, err := bpf.NewProgram(spec, counts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func newCounts(t *testing.T) (*ebpf.CollectionSpec, *ebpf.Map) {
	t.Helper()
	cpus, err := bpf.PossibleCPUs()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := bpf.Spec(cpus)
	if err != nil {
		t.Fatal(err)
	}
	counts, err := bpf.NewMap(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { counts.Close() })
	return spec, counts
}

// A program is replaced by another with the same map while frames arrive. All frames are counted.
func TestReplaceProgramUnderTraffic(t *testing.T) {
	spec, counts := newCounts(t)
	n := netns.New(t)
	index, peer := n.Veth(t, "eth0", "peer")
	var attached link.Link
	var send *frames.Sender
	n.Do(func() {
		var err error
		if attached, err = link.AttachXDP(link.XDPOptions{Program: program(t, spec, counts), Interface: index, Flags: link.XDPDriverMode}); err != nil {
			t.Fatal(err)
		}
		if send, err = frames.NewSender(peer); err != nil {
			t.Fatal(err)
		}
	})
	defer attached.Close()
	defer send.Close()
	const rounds, each = 20, 50
	f := frames.Common()[0]
	sent := make(chan error, 1)
	go func() {
		var err error
		for range rounds {
			err = errors.Join(err, send.Send(f.Data, each))
		}
		sent <- err
	}()
	for range 5 {
		if err := attached.Update(program(t, spec, counts)); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		var table []byte
		if err := counts.Lookup(uint32(0), &table); err != nil {
			t.Fatal(err)
		}
		var packets uint64
		for at := int(f.Class) * 16; at < len(table); at += bpf.BytesPerCPU {
			packets += binary.NativeEndian.Uint64(table[at:])
		}
		if packets == rounds*each {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d frames are counted", packets, rounds*each)
		}
	}
	record(t, "Update", nil)
}

// TestFastcall checks whether the kernel removes the register saving around the call for the CPU number (bpf_fastcall).
func TestFastcall(t *testing.T) {
	spec, counts := newCounts(t)
	info, err := program(t, spec, counts).Info()
	if err != nil {
		t.Fatal(err)
	}
	code, err := info.Instructions()
	if err != nil {
		t.Fatal(err)
	}
	stack := 0 // number of stores to the stack at the beginning of the program
	for _, ins := range code[:8] {
		if ins.OpCode.Class().IsStore() && ins.Dst == asm.RFP {
			stack++
		}
	}
	switch stack {
	case 0:
		record(t, "Fastcall", nil)
	case 1:
		record(t, "Fastcall", errors.New("the instructions are not changed"))
	default:
		t.Errorf("%d stores onto the stack where one is written:\n%v", stack, code[:8])
	}
}

// Where neither kfuncs nor reading kernel memory is allowed, aggregates count as one packet, and the attachment says so.
func TestAggregatesInGenericMode(t *testing.T) {
	n := netns.New(t)
	index, _ := n.Veth(t, "eth0", "peer")
	locked, _ := os.ReadFile("/sys/kernel/security/lockdown")
	confidential := strings.Contains(string(locked), "[confidentiality]")
	n.Do(func() {
		d, err := datapath.Open(bpffs.Mount(t), "boot")
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := d.Attach(plan.Attachment{Index: index, Name: "eth0", Mode: plan.Generic}); err != nil {
			t.Fatal(err)
		}
		attached, err := d.Attached()
		if err != nil || len(attached) != 1 {
			t.Fatal(attached, err)
		}
		t.Logf("lockdown %q: %+v", locked, attached[0])
		if attached[0].Outdated || attached[0].CountsAggregates && !confidential {
			t.Errorf("lockdown %q: %+v", locked, attached[0])
		}
	})
}
