// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/agent/datapath"
	"github.com/xdp-operator/xdp-operator/agent/links"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	wait "github.com/xdp-operator/xdp-operator/test/util/eventually"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

// soon is the timeout for everything that should happen at once, on a busy machine.
const soon = 20 * time.Second

// lab is a network namespace with a veth pair: eth0, which is counted, and peer, which sends frames.
type lab struct {
	net  *netns.Namespace
	send *frames.Sender
	sent traffic.Totals
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{net: netns.New(t)}
	_, peer := l.net.Veth(t, "eth0", "peer")
	l.send = l.sender(t, peer)
	return l
}

func (l *lab) sender(t *testing.T, index int) (s *frames.Sender) {
	t.Helper()
	l.net.Do(func() {
		var err error
		if s, err = frames.NewSender(index); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { s.Close() })
	return s
}

// traffic sends n frames of every kind.
func (l *lab) traffic(t *testing.T, n int) {
	t.Helper()
	for _, f := range frames.All() {
		if err := l.send.Send(f.Data, n); err != nil {
			t.Fatal(err)
		}
		l.sent[f.Class] = l.sent[f.Class].Plus(traffic.Counts{Packets: uint64(n), Bytes: uint64(n * len(f.Data))})
	}
}

func (l *lab) link(t *testing.T, name string) (got netlink.Link) {
	t.Helper()
	l.net.Do(func() {
		var err error
		if got, err = netlink.LinkByName(name); err != nil {
			t.Fatal(err)
		}
	})
	return got
}

// altName gives the interface another name.
func (l *lab) altName(t *testing.T, name, other string) {
	t.Helper()
	i := l.link(t, name)
	l.net.Do(func() {
		if err := netlink.LinkAddAltName(i, other); err != nil {
			t.Fatal(err)
		}
	})
}

// hook returns what is attached to the interface.
func (l *lab) hook(t *testing.T, name string) plan.Hook {
	t.Helper()
	var interfaces []plan.Interface
	l.net.Do(func() {
		var err error
		if interfaces, err = (links.Links{}).List(); err != nil {
			t.Fatal(err)
		}
	})
	return find(interfaces, func(i plan.Interface) bool { return i.Name == name }).Hook
}

func (l *lab) expectUnhooked(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if hook := l.hook(t, name); hook != (plan.Hook{}) {
			t.Errorf("%s has %+v", name, hook)
		}
	}
}

// foreign attaches another program for the duration of the test, and returns its ID.
func (l *lab) foreign(t *testing.T, name string) uint32 {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "foreign", Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2 /* XDP_PASS */), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	index := l.link(t, name).Attrs().Index
	l.net.Do(func() {
		held, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: index, Flags: link.XDPGenericMode})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { held.Close() })
	})
	return l.hook(t, name).Program
}

// process is a running xdpcount.
type process struct {
	*exec.Cmd
	reports chan jsonReport // closed at the end
	stderr  bytes.Buffer
}

// start runs xdpcount with JSON output in the lab's network namespace.
func (l *lab) start(t *testing.T, args ...string) *process {
	t.Helper()
	return l.startAs(t, exec.Command(binary), args...)
}

// startAs runs a command that runs xdpcount with its arguments, like start.
func (l *lab) startAs(t *testing.T, cmd *exec.Cmd, args ...string) *process {
	t.Helper()
	cmd.Args = append(append(cmd.Args, "--output=json", "--interval=20ms"), args...)
	p := &process{Cmd: cmd}
	p.reports = make(chan jsonReport, 1000)
	p.Stderr = &p.stderr
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	l.run(t, p.Cmd)
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.reports)
		decoder := json.NewDecoder(out)
		decoder.DisallowUnknownFields()
		for {
			var r jsonReport
			if err := decoder.Decode(&r); err != nil {
				return
			}
			p.reports <- r
		}
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		go func() { // so that the reader never blocks
			for range p.reports {
			}
		}()
		<-read
		_ = p.Wait()
	})
	return p
}

// run starts a command in the lab's network namespace.
func (l *lab) run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	l.net.Do(func() { // a process starts in the namespace of the thread that forks it
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	})
}

// until returns the first report for which wanted returns true.
func (p *process) until(t *testing.T, what string, wanted func(jsonReport) bool) jsonReport {
	t.Helper()
	var last jsonReport
	for timeout := time.After(soon); ; {
		select {
		case r, ok := <-p.reports:
			if !ok {
				t.Fatalf("ended before %s: %s; the last report is %+v", what, p.stderr.String(), last)
			}
			if wanted(r) {
				return r
			}
			last = r
		case <-timeout:
			t.Fatalf("not in time: %s; the last report is %+v", what, last)
		}
	}
}

func (p *process) untilCounting(t *testing.T) jsonReport {
	t.Helper()
	return p.until(t, "it counts", func(jsonReport) bool { return true })
}

// untilCounted waits until the first interface has counted all packets that were sent.
func (p *process) untilCounted(t *testing.T, sent traffic.Totals) jsonReport {
	t.Helper()
	return p.until(t, "everything is counted", func(r jsonReport) bool {
		return len(r.Interfaces) > 0 && r.Interfaces[0].Totals.Packets >= sent.Sum().Packets
	})
}

// end sends the signal and returns the summary and the exit status, which is negative if the signal killed the process.
func (p *process) end(t *testing.T, signal os.Signal) (summary jsonReport, status int) {
	t.Helper()
	if err := p.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	return p.ended(t)
}

func (p *process) ended(t *testing.T) (summary jsonReport, status int) {
	t.Helper()
	for timeout := time.After(soon); ; {
		select {
		case r, ok := <-p.reports:
			if ok {
				summary = r
				continue
			}
			_ = p.Wait()
			return summary, p.ProcessState.ExitCode()
		case <-timeout:
			t.Fatal("it does not exit")
		}
	}
}

// counts returns the counts of an interface, by class.
func counts(i jsonInterface) map[string]traffic.Counts {
	m := map[string]traffic.Counts{}
	for _, c := range i.Classes {
		m[fmt.Sprint(c.Family, " ", c.Protocol, " ", c.Number != nil)] = traffic.Counts{Packets: c.Packets, Bytes: c.Bytes}
	}
	return m
}

func wantCounts(t traffic.Totals) map[string]traffic.Counts {
	m := map[string]traffic.Counts{}
	for c, counts := range t.NonZero() {
		_, numbered := c.Number()
		m[fmt.Sprint(c.Family(), " ", c.Protocol(), " ", numbered)] = counts
	}
	return m
}

// loaded returns a program and its maps, as they are in the kernel.
func loaded(t *testing.T, program uint32) (ebpf.ProgramID, []ebpf.MapID) {
	t.Helper()
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(program))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	maps, ok := info.MapIDs()
	if !ok || len(maps) == 0 {
		t.Fatalf("the program has no maps: %v", info)
	}
	return ebpf.ProgramID(program), maps
}

func (p *process) signal(t *testing.T, signal os.Signal) {
	t.Helper()
	if err := p.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// eventually calls check until it returns nil.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	wait.Succeed(t, soon, check)
}

// pin attaches the interface in an agent's datapath for the duration of the test.
func pin(t *testing.T, l *lab, bpffs, name string) *datapath.Datapath {
	t.Helper()
	var d *datapath.Datapath
	l.net.Do(func() {
		var err error
		if d, err = datapath.Open(bpffs, "boot"); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() {
		_, err := d.Cleanup()
		if err := errors.Join(err, d.Close()); err != nil {
			t.Error(err)
		}
	})
	attach(t, l, d, name)
	return d
}

func attach(t *testing.T, l *lab, d *datapath.Datapath, name string) {
	t.Helper()
	a := plan.Attachment{Index: l.link(t, name).Attrs().Index, Name: name, Mode: plan.Auto}
	l.net.Do(func() {
		if err := d.Attach(a); err != nil {
			t.Fatal(err)
		}
	})
}
