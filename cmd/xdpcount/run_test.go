// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/links"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/util/bpffs"
	"github.com/xdp-operator/xdp-operator/test/util/terminal"
)

// autoOnVeth returns the mode that is chosen without -S and -N: generic mode costs less, but is dangerous where there is SCTP, as in
// the guests of test/kernels.
func autoOnVeth() plan.Mode {
	if (links.Links{}).HasSCTP() {
		return plan.Native
	}
	return plan.Generic
}

func TestTotals(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want plan.Mode
	}{
		"native":                 {[]string{"-N", "eth0"}, plan.Native},
		"generic":                {[]string{"-S", "eth0"}, plan.Generic},
		"auto":                   {[]string{"eth0"}, autoOnVeth()},
		"by an alternative name": {[]string{"an-alternative-name-of-eth0"}, autoOnVeth()},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.altName(t, "eth0", "an-alternative-name-of-eth0")
			p := l.start(t, test.args...)
			first := p.untilCounting(t)
			before := l.link(t, "eth0").Attrs().Statistics
			if hook := l.hook(t, "eth0"); hook.Mode != test.want {
				t.Errorf("attached in %q mode", hook.Mode)
			}
			l.traffic(t, 10)
			p.untilCounted(t, l.sent)
			after := l.link(t, "eth0").Attrs().Statistics
			last, status := p.end(t, os.Interrupt)
			if status != 0 || p.stderr.Len() != 0 || last.Type != typeSummary {
				t.Fatalf("status %d, last report of type %q: %s", status, last.Type, p.stderr.String())
			}
			l.expectUnhooked(t, "eth0")

			i := last.Interfaces[0]
			if diff := cmp.Diff(wantCounts(l.sent), counts(i)); diff != "" {
				t.Errorf("not what was sent (-sent +counted):\n%s", diff)
			}
			all := l.sent.Sum()
			if i.Name != "eth0" || i.Mode != test.want || i.Gone || i.Totals.Packets != all.Packets || i.Totals.Bytes != all.Bytes {
				t.Errorf("counted %d packets and %d bytes on %s in %s mode, sent %+v", i.Totals.Packets, i.Totals.Bytes, i.Name, i.Mode, all)
			}
			if got := after.RxPackets - before.RxPackets; got != all.Packets {
				t.Errorf("rx_packets grew by %d, sent %d", got, all.Packets)
			}
			// docs/xdpcount.md describes rx_bytes.
			want := all.Bytes
			if test.want == plan.Native {
				want -= 14 * all.Packets
			}
			if got := after.RxBytes - before.RxBytes; got != want {
				t.Errorf("rx_bytes grew by %d, sent %d in %d frames", got, all.Bytes, all.Packets)
			}
			mean := float64(all.Packets) / last.IntervalSeconds
			if got := *i.Totals.PacketsPerSecond; got < mean*0.999 || got > mean*1.001 {
				t.Errorf("mean rate %v packets/s, sent %d in %v s", got, all.Packets, last.IntervalSeconds)
			}
			if first.Type != typeInterval || first.IntervalSeconds < 0.02 || time.Since(first.Time) > time.Hour {
				t.Errorf("first report: %+v", first)
			}
		})
	}
}

func TestInterfaceOrder(t *testing.T) {
	l := newLab(t)
	l.net.Bridge(t, "br0")
	p := l.start(t, "br0", "peer", "eth0", "lo", "--count=2")
	last, status := p.ended(t)
	var got []string
	for _, i := range last.Interfaces {
		got = append(got, i.Name+" "+string(i.Mode))
	}
	mode := string(autoOnVeth())
	want := []string{"br0 Generic", "peer " + mode, "eth0 " + mode, "lo Generic"}
	if diff := cmp.Diff(want, got); diff != "" || status != 0 {
		t.Errorf("status %d %s (-want +got):\n%s", status, p.stderr.String(), diff)
	}
	l.expectUnhooked(t, want...)
}

func TestDetachOnExit(t *testing.T) {
	// Under nohup a child would ignore SIGHUP. A signal that the parent catches is not ignored in the child.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, unix.SIGHUP)
	defer signal.Stop(hangup)
	for name, test := range map[string]struct {
		args   []string
		end    func(t *testing.T, p *process)
		status int
	}{
		"SIGINT":   {nil, func(t *testing.T, p *process) { p.signal(t, unix.SIGINT) }, 0},
		"SIGTERM":  {nil, func(t *testing.T, p *process) { p.signal(t, unix.SIGTERM) }, 0},
		"SIGKILL":  {nil, func(t *testing.T, p *process) { p.signal(t, unix.SIGKILL) }, -1},
		"SIGHUP":   {nil, func(t *testing.T, p *process) { p.signal(t, unix.SIGHUP) }, -1},
		"duration": {[]string{"--duration=300ms"}, func(*testing.T, *process) {}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			p := l.start(t, append(test.args, "eth0", "peer")...)
			p.untilCounting(t)
			var id ebpf.ProgramID
			var maps []ebpf.MapID
			if hook := l.hook(t, "eth0"); hook.Program != 0 { // with --duration it may have exited already
				id, maps = loaded(t, hook.Program)
			}
			test.end(t, p)
			if _, status := p.ended(t); status != test.status {
				t.Errorf("status %d: %s", status, p.stderr.String())
			}
			if test.status == 0 {
				l.expectUnhooked(t, "eth0", "peer") // synchronously
			}
			// If the process was killed, the kernel cleans up some time later.
			eventually(t, func() error {
				for _, name := range []string{"eth0", "peer"} {
					if hook := l.hook(t, name); hook != (plan.Hook{}) {
						return fmt.Errorf("%s has %+v", name, hook)
					}
				}
				if id != 0 {
					if left, err := ebpf.NewProgramFromID(id); err == nil {
						return errors.Join(fmt.Errorf("program %d is still loaded", id), left.Close())
					}
				}
				for _, id := range maps {
					if left, err := ebpf.NewMapFromID(id); err == nil {
						return errors.Join(fmt.Errorf("map %d still exists", id), left.Close())
					}
				}
				return nil
			})
		})
	}
}

func TestExitOnClosedPipe(t *testing.T) {
	l := newLab(t)
	cmd := exec.Command(binary, "--interval=20ms", "eth0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	l.run(t, cmd)
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if state, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || state.Signal() != unix.SIGPIPE {
		t.Errorf("ended with %v", cmd.ProcessState)
	}
	eventually(t, func() error {
		if hook := l.hook(t, "eth0"); hook != (plan.Hook{}) {
			return fmt.Errorf("eth0 has %+v", hook)
		}
		return nil
	})
}

func TestSecondSignalWhileBlockedOnOutput(t *testing.T) {
	l := newLab(t)
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	defer in.Close()
	if _, err := unix.FcntlInt(in.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "--interval=10ms", "eth0")
	cmd.Stdout = in
	l.run(t, cmd)
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	stable := 0 // number of consecutive checks in which the pipe has not grown
	for last := -1; stable < 20; time.Sleep(20 * time.Millisecond) {
		n, err := unix.IoctlGetInt(int(out.Fd()), unix.TIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		if stable++; n != last || n == 0 {
			stable = 0
		}
		last = n
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	for timeout := time.After(soon); ; {
		_ = cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-ended:
			eventually(t, func() error {
				if hook := l.hook(t, "eth0"); hook != (plan.Hook{}) {
					return fmt.Errorf("eth0 has %+v", hook)
				}
				return nil
			})
			return
		case <-time.After(20 * time.Millisecond):
		case <-timeout:
			t.Fatal("it does not exit")
		}
	}
}

func TestErrors(t *testing.T) {
	l := newLab(t)
	l.net.Bridge(t, "br0")
	l.net.Add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "taken"}, PeerName: "taken1"})
	l.altName(t, "eth0", "enp0s3")
	l.net.Bridge(t, "esc\x1b[31m")
	busy := fmt.Sprintf("program id %d in Generic mode", l.foreign(t, "taken"))
	pinned, empty, plain := bpffs.Mount(t), bpffs.Mount(t), t.TempDir()
	pin(t, l, pinned, "peer")

	const nobody = 65534
	none := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	hint := " (bpftool prog show shows its owner; to read the counts of an agent, use --pinned)"
	for name, test := range map[string]struct {
		args   string
		as     *syscall.SysProcAttr
		status int
		line   string // an ellipsis matches the message of the kernel
	}{
		"usage":                   {"--count=x eth0", nil, 2, `usage: invalid value "x" for flag -count: parse error (xdpcount -h lists the flags)`},
		"one interface twice":     {"eth0 enp0s3", nil, 2, `usage: "eth0" and "enp0s3" are one interface (xdpcount -h lists the flags)`},
		"no interface":            {"eth9", nil, 3, "no such interface: eth9"},
		"ESC in a name":           {"-N esc\x1b[31m", nil, 7, `attach esc\x1b[31m: the driver has no native XDP: … (without -N the program is attached in generic mode)`},
		"one of several missing":  {"eth0 eth9 eth8", nil, 3, "no such interface: eth9, eth8"},
		"a busy hook":             {"eth0 taken", nil, 4, "another XDP program holds the hook: taken has " + busy + hint},
		"busy hook with -S":       {"-S taken", nil, 4, "another XDP program holds the hook: taken has " + busy + hint},
		"no permission to attach": {"eth0", none, 5, "attach eth0: not permitted: … (requires root, or the capabilities BPF, NET_ADMIN and PERFMON)"},
		"no permission to read":   {"--pinned --bpffs " + pinned, none, 5, "… permission denied (requires root, or the capabilities BPF, NET_ADMIN and PERFMON)"},
		"no bpffs":                {"--pinned --bpffs " + plain, nil, 6, "no BPF file system is mounted at " + plain + " (--bpffs selects another path)"},
		"no such path":            {"--pinned --bpffs " + plain + "/none", nil, 6, "no BPF file system is mounted at " + plain + "/none: no such file or directory (--bpffs selects another path)"},
		"native unsupported":      {"-N eth0 br0", nil, 7, "attach br0: the driver has no native XDP: … (without -N the program is attached in generic mode)"},
		"nothing pinned":          {"--pinned --bpffs " + empty, nil, 8, "nothing is pinned in " + empty + ": no agent counts here (without --pinned, xdpcount attaches its own program)"},
		"interface not pinned":    {"--pinned --bpffs " + pinned + " enp0s3 peer", nil, 8, "nothing is pinned in " + pinned + " for eth0: no agent counts on it (without --pinned, xdpcount attaches its own program)"},
		"pinned, no interface":    {"--pinned --bpffs " + pinned + " eth9", nil, 3, "no such interface: eth9"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(binary, strings.Fields(test.args)...)
			cmd.SysProcAttr = test.as
			cmd.Dir = "/"
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			l.run(t, cmd)
			_ = cmd.Wait()
			if status := cmd.ProcessState.ExitCode(); status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			got, rest, ended := strings.Cut(stderr.String(), "\n")
			begin, end, elided := strings.Cut(test.line, "…")
			begin = "xdpcount: " + begin
			fits := got == begin
			if elided {
				fits = strings.HasPrefix(got, begin) && strings.HasSuffix(got, end)
			}
			if !fits || rest != "" || !ended || stdout.Len() != 0 {
				t.Errorf("stderr is\n%s, want\n%s%s, stdout is %q", stderr.String(), begin, end, stdout.String())
			}
			l.expectUnhooked(t, "eth0", "br0", "jumbo")
		})
	}
}

func TestSecondInstanceReportsFirst(t *testing.T) {
	l := newLab(t)
	l.start(t, "eth0").untilCounting(t)
	second := l.start(t, "eth0")
	_, status := second.ended(t)
	want := fmt.Sprintf("eth0 has program id %d in %s mode", l.hook(t, "eth0").Program, autoOnVeth())
	if status != 4 || !strings.Contains(second.stderr.String(), want) {
		t.Errorf("status %d: %s, want %s", status, second.stderr.String(), want)
	}
}

func TestPinned(t *testing.T) {
	for name, args := range map[string][]string{"named interface": {"eth0"}, "alternative name": {"enp0s3"}, "all interfaces": nil} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.altName(t, "eth0", "enp0s3")
			mount := bpffs.Mount(t)
			agent := pin(t, l, mount, "eth0")
			before, err := agent.Attached()
			if err != nil {
				t.Fatal(err)
			}
			// The state of an agent that is about to attach. It must not be changed either.
			half := filepath.Join(filepath.Dir(before[0].Pin), "4711")
			if err := os.Mkdir(half, 0o700); err != nil {
				t.Fatal(err)
			}
			l.traffic(t, 1) // before xdpcount starts
			p := l.start(t, append([]string{"--pinned", "--bpffs", mount}, args...)...)
			p.untilCounted(t, l.sent)
			l.traffic(t, 2)
			r := p.untilCounted(t, l.sent)
			if err := os.Remove(half); err != nil {
				t.Errorf("the directory was removed: %v", err)
			}
			if diff := cmp.Diff(wantCounts(l.sent), counts(r.Interfaces[0])); diff != "" {
				t.Errorf("not what was sent (-sent +counted):\n%s", diff)
			}

			// The agent detaches from the interface, and attaches again.
			if err := agent.Detach(before[0]); err != nil {
				t.Fatal(err)
			}
			p.until(t, "nothing is counted", func(r jsonReport) bool { return len(r.Interfaces) == 0 })
			l.expectUnhooked(t, "eth0")
			attach(t, l, agent, "eth0")
			l.sent = traffic.Totals{}
			l.traffic(t, 1)
			p.until(t, "it is counted again", func(r jsonReport) bool {
				return len(r.Interfaces) == 1 && r.Interfaces[0].Totals.Packets >= l.sent.Sum().Packets
			})
			again, err := agent.Attached()
			if err != nil {
				t.Fatal(err)
			}
			last, status := p.end(t, unix.SIGTERM)
			if status != 0 {
				t.Errorf("status %d: %s", status, p.stderr.String())
			}
			if diff := cmp.Diff(wantCounts(l.sent), counts(last.Interfaces[0])); diff != "" {
				t.Errorf("the summary is not what was sent (-sent +counted):\n%s", diff)
			}

			// The agent's attachments are unchanged.
			after, err := agent.Attached()
			if diff := cmp.Diff(again, after); diff != "" || err != nil || len(after) != 1 {
				t.Errorf("the attachments have changed, error %v (-before +after):\n%s", err, diff)
			}
			if hook := l.hook(t, "eth0"); hook.Program != again[0].Program {
				t.Errorf("the hook has %+v, the agent attached %+v", hook, again[0])
			}
			l.traffic(t, 1)
			eventually(t, func() error {
				readings, err := agent.Read()
				if err != nil || len(readings) != 1 || readings[0].Totals != l.sent {
					return fmt.Errorf("the agent does not read what was sent, error %w", err)
				}
				return nil
			})
		})
	}
}

// Nodes of kind use the BPF file system of their host, and their interfaces have the same indexes.
func TestPinnedOfItsOwnNetworkNamespace(t *testing.T) {
	mount := bpffs.Mount(t)
	a, b := newLab(t), newLab(t)
	pin(t, a, mount, "eth0")
	p := b.start(t, "--pinned", "--bpffs", mount)
	if _, status := p.ended(t); status != 8 {
		t.Errorf("status %d where no agent counts: %s", status, p.stderr.String())
	}
	pin(t, b, mount, "eth0")
	a.traffic(t, 3)
	b.traffic(t, 1)
	for _, l := range []*lab{a, b} {
		p := l.start(t, "--pinned", "--bpffs", mount)
		r := p.untilCounted(t, l.sent)
		if len(r.Interfaces) != 1 {
			t.Fatalf("the interfaces are %+v", r.Interfaces)
		}
		if diff := cmp.Diff(wantCounts(l.sent), counts(r.Interfaces[0])); diff != "" {
			t.Errorf("not what was sent (-sent +counted):\n%s", diff)
		}
	}
}

func TestCountAndDuration(t *testing.T) {
	l := newLab(t)
	for name, test := range map[string]struct {
		args      []string
		intervals int
		took      time.Duration // minimum
	}{
		"three intervals":                      {[]string{"--count=3"}, 3, 60 * time.Millisecond},
		"one interval":                         {[]string{"--count=1"}, 1, 20 * time.Millisecond},
		"duration shorter than the interval":   {[]string{"--interval=1h", "--duration=50ms"}, 0, 50 * time.Millisecond},
		"duration of one and a half intervals": {[]string{"--interval=100ms", "--duration=150ms"}, 1, 150 * time.Millisecond},
	} {
		p := l.start(t, append(test.args, "eth0")...)
		intervals, summaries := 0, 0
		for r := range p.reports {
			switch r.Type {
			case typeInterval:
				intervals++
			case typeSummary:
				summaries++
				if r.IntervalSeconds < test.took.Seconds() {
					t.Errorf("%s: it took %v s", name, r.IntervalSeconds)
				}
			}
		}
		_ = p.Wait()
		if status := p.ProcessState.ExitCode(); intervals != test.intervals || summaries != 1 || status != 0 {
			t.Errorf("%s: %d intervals, %d summaries, status %d: %s", name, intervals, summaries, status, p.stderr.String())
		}
	}
}

func TestInterfaceDeleted(t *testing.T) {
	l := newLab(t)
	p := l.start(t, "eth0", "peer")
	p.untilCounting(t)
	l.traffic(t, 1)
	p.untilCounted(t, l.sent)
	l.net.Delete(t, "eth0")
	last, status := p.ended(t)
	if status != 3 || p.stderr.String() != "xdpcount: no interface is left: the interface is gone\n" {
		t.Errorf("status %d: %s", status, p.stderr.String())
	}
	if len(last.Interfaces) != 2 || !last.Interfaces[0].Gone || last.Interfaces[0].Name != "eth0" {
		t.Fatalf("the last report is %+v", last)
	}
	if diff := cmp.Diff(wantCounts(l.sent), counts(last.Interfaces[0])); diff != "" {
		t.Errorf("(-sent +counted):\n%s", diff)
	}
}

func TestTableOnTerminal(t *testing.T) {
	const columns, lines = 60, 9
	l := newLab(t)
	screen, end := terminal.Open(t, columns, lines)
	cmd := exec.Command(binary, "--interval=50ms", "--count=4", "eth0")
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = end, &stderr
	l.run(t, cmd)
	end.Close()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	l.traffic(t, 1)
	out, _ := io.ReadAll(screen) // returns an error when the process has closed the terminal
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	tables := strings.Split(strings.ReplaceAll(string(out), "\r\n", "\n"), "\x1b[J")
	if len(tables) != 5 {
		t.Fatalf("%d tables:\n%s", len(tables), out)
	}
	for i, table := range tables[:4] {
		text, up, _ := strings.Cut(table, "\x1b[")
		drawn := strings.Count(text, "\n")
		if drawn >= lines || up != strconv.Itoa(drawn)+"A\r" {
			t.Errorf("table %d has %d lines, and the cursor moves up by %q:\n%s", i, drawn, up, text)
		}
		for line := range strings.Lines(text) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > columns {
				t.Errorf("table %d has a line of %d columns: %s", i, n, line)
			}
		}
	}
	if !strings.Contains(tables[4], "mean rates over") {
		t.Errorf("no summary at the end:\n%s", tables[4])
	}
}
