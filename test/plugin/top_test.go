// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/util/terminal"
)

// printed is what the tests read of the JSON.
type printed struct {
	By, Note string
	Counters []struct {
		Name, Ready, Reason string
		Totals              counts
		Rows                []struct {
			Protocol, Family, Node, Interface, Mode string
			Number                                  *int
			counts
		}
	}
}

type counts struct {
	Packets, Bytes                  uint64
	PacketsPerSecond, BitsPerSecond *float64
}

func (c counts) rate() float64 {
	if c.PacketsPerSecond == nil {
		return -1
	}
	return *c.PacketsPerSecond
}

func once(t *testing.T, args ...string) printed {
	t.Helper()
	r := run(t, kubectl(t.Context(), append([]string{"top", "--once", "-o", "json"}, args...)...))
	r.expect(t, 0)
	var p printed
	if err := json.Unmarshal([]byte(r.out), &p); err != nil {
		t.Fatalf("%v in %s", err, r.out)
	}
	return p
}

func TestTopOnce(t *testing.T) {
	totals := some(map[traffic.Class]uint64{tcp4: 3000, udp6: 500, traffic.ClassARP: 20})
	c := counter(t, "workers", totals, isReady)
	counter(t, "other", traffic.Totals{}, isReady)
	report(t, nodeState(t, "n1", c), time.Now(), totals)

	r := run(t, kubectl(t.Context(), "top", "workers", "--once"))
	r.expect(t, 0, `
PROTOCOL FAMILY  PACKETS/S   BITS/S  PACKETS     BYTES SHARE
TCP      IPv4          300   240.0k     3.0k  293.0KiB   85%
UDP      IPv6           50    40.0k      500   48.8KiB   14%
ARP      -             2.0     1.6k       20    2.0KiB    1%
all                    352   281.6k     3.5k  343.8KiB  100%
`)
	if strings.Contains(r.out, "\x1b") {
		t.Errorf("escape sequences without a terminal: %q", r.out)
	}
	run(t, kubectl(t.Context(), "top", "--once")).expect(t, 0, "COUNTER STATE", "workers Ready", "other   Ready")

	p := once(t, "workers")
	if rows := p.Counters[0].Rows; p.By != "protocol" || len(p.Counters) != 1 || len(rows) != 3 ||
		rows[1].Protocol != "UDP" || rows[1].Family != "IPv6" || *rows[1].Number != 17 || rows[1].Packets != 500 || rows[1].rate() != 50 {
		t.Errorf("by protocol: %+v", p)
	}
	if p := once(t, "workers", "--by=family", "--sort=total"); len(p.Counters[0].Rows) != 3 || p.Counters[0].Rows[0].Family != "IPv4" {
		t.Errorf("by family: %+v", p)
	}
	if p := once(t, "workers", "--by=node"); p.Counters[0].Rows[0].Node != "n1" || p.Counters[0].Totals.Packets != 3520 {
		t.Errorf("by node: %+v", p)
	}
	if p := once(t, "--by=interface"); len(p.Counters) != 2 || p.Counters[1].Rows[0].Interface != "eth0" || p.Counters[1].Rows[0].Mode != "Native" ||
		p.Counters[1].Rows[0].rate() != -1 {
		t.Errorf("by interface: %+v", p)
	}
	if p := once(t); p.By != "counter" || len(p.Counters) != 2 || p.Counters[0].Name != "workers" || p.Counters[0].Rows != nil {
		t.Errorf("of all counters: %+v", p)
	}
}

// live is a top that runs.
type live struct {
	cmd    *exec.Cmd
	lines  *bufio.Scanner
	stderr bytes.Buffer
}

func start(t *testing.T, args ...string) *live {
	t.Helper()
	l := &live{cmd: kubectl(t.Context(), append([]string{"top", "--interval=100ms", "-o=json"}, args...)...)}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	l.cmd.Stderr = &l.stderr
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.cmd.Process.Kill() })
	l.lines = bufio.NewScanner(out)
	return l
}

// until reads what is printed until it is as wanted.
func (l *live) until(t *testing.T, what string, wanted func(printed) bool) {
	t.Helper()
	deadline := time.Now().Add(soon)
	for l.lines.Scan() {
		var p printed
		if err := json.Unmarshal(l.lines.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		if wanted(p) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s; the last was %s", soon, what, l.lines.Text())
		}
	}
	t.Fatalf("it ended before: %s: %s", what, l.stderr.String())
}

func TestTopLiveMeasuresByItself(t *testing.T) {
	c := counter(t, "workers", some(map[traffic.Class]uint64{tcp4: 1000}), isReady)
	s := nodeState(t, "n1", c)
	began := time.Now()
	report(t, s, began, some(map[traffic.Class]uint64{tcp4: 1000}))
	byProtocol, byInterface := start(t, "workers"), start(t, "workers", "--by=interface")
	row := func(rate float64) func(printed) bool {
		return func(p printed) bool {
			return len(p.Counters) == 1 && len(p.Counters[0].Rows) == 1 && p.Counters[0].Rows[0].rate() == rate
		}
	}
	// The rate of the status is 100; the node has counted 500 in two seconds.
	byProtocol.until(t, "the rate of the status", row(100))
	byInterface.until(t, "no rate", row(-1))
	report(t, s, began.Add(2*time.Second), some(map[traffic.Class]uint64{tcp4: 1500}))
	byProtocol.until(t, "the rate between two reports", row(250))
	byInterface.until(t, "the rate between two reports", row(250))
	byProtocol.until(t, "zero, when no more reports come", row(0))

	if err := byInterface.cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	for byInterface.lines.Scan() {
	}
	if err := byInterface.cmd.Wait(); err != nil {
		t.Errorf("after SIGINT: %v: %s", err, byInterface.stderr.String())
	}
	if err := api.Delete(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	for byProtocol.lines.Scan() {
	}
	_ = byProtocol.cmd.Wait()
	result{"", byProtocol.stderr.String(), byProtocol.cmd.ProcessState.ExitCode()}.expect(t, 3, "no such XDPCounter: workers was deleted")
}

func TestTopOutlastsAnOutage(t *testing.T) {
	c := counter(t, "workers", some(map[traffic.Class]uint64{tcp4: 1000}), isReady)
	report(t, nodeState(t, "n1", c), time.Now(), some(map[traffic.Class]uint64{tcp4: 1000}))
	l := start(t, "workers")
	whole := func(p printed) bool { return p.Note == "" && len(p.Counters) == 1 }
	l.until(t, "the counter", whole)
	if err := plane.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := plane.StartAPIServer(); err != nil {
			t.Fatal(err)
		}
		l.until(t, "the counter, again", whole)
	}()
	l.until(t, "a note, and the counter as it was", func(p printed) bool {
		return strings.Contains(p.Note, "the API server does not answer") && len(p.Counters) == 1
	})
	run(t, kubectl(t.Context(), "top", "--once")).expect(t, 7, "the API server does not answer: https://127.0.0.1:")
	run(t, kubectl(t.Context(), "why", "workers")).expect(t, 7, "the API server does not answer: https://127.0.0.1:")
}

func TestTopOnATerminal(t *testing.T) {
	const columns, lines = 70, 7
	totals := some(map[traffic.Class]uint64{tcp4: 3000, udp6: 500, traffic.ClassARP: 20, traffic.ClassOther: 4})
	c := counter(t, "workers", totals, isReady)
	report(t, nodeState(t, "n1", c), time.Now(), totals)
	screen, end := terminal.Open(t, columns, lines)
	cmd := kubectl(t.Context(), "top", "workers", "--interval=100ms")
	cmd.Stdout = end
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end.Close()
	var out []byte
	read := make([]byte, 4096)
	for ended := false; ; {
		n, err := screen.Read(read)
		if err != nil { // nobody has the terminal open any more
			break
		}
		out = append(out, read[:n]...)
		if !ended && bytes.Count(out, []byte("\x1b[J")) > 1 {
			ended = true
			if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	tables := strings.Split(strings.ReplaceAll(string(out), "\r\n", "\n"), "\x1b[J")
	if len(tables) < 3 {
		t.Fatalf("%d tables:\n%s", len(tables), out)
	}
	table, _, _ := strings.Cut(tables[1], "\x1b")
	if shown := strings.Split(strings.TrimSuffix(table, "\n"), "\n"); len(shown) != lines-1 || !strings.Contains(table, "2 others") ||
		slices.ContainsFunc(shown, func(line string) bool { return len([]rune(line)) > columns }) {
		t.Errorf("does not fit into %d columns and %d lines:\n%s", columns, lines, table)
	}
}
