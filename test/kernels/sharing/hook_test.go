// SPDX-License-Identifier: Apache-2.0

package sharing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/agent/datapath"
	"github.com/xdp-operator/xdp-operator/agent/links"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
	"github.com/xdp-operator/xdp-operator/test/util/bpffs"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

// ours is the counting program in the list of xdp-loader: the kernel keeps 15 letters of a name.
var ours = regexp.MustCompile(`^count_frame`)

// sharedHook is an interface whose hook is shared with xdp-loader.
type sharedHook struct {
	t           *testing.T
	ns          *netns.Namespace
	bpffs       string
	index, peer int
	namespace   string // the folder of the pins of the network namespace
	datapath    *datapath.Datapath
	send        *frames.Sender
	object      string   // the file with the others' programs
	env         []string // of xdp-loader
}

func newSharedHook(t *testing.T) *sharedHook {
	t.Helper()
	if os.Getenv(report.Guest) == "" {
		t.Fatal("this test needs xdp-loader and a kernel that lets programs replace functions: it is for make test-kernels to run")
	}
	s := &sharedHook{t: t, ns: netns.New(t), bpffs: bpffs.Mount(t)}
	s.index, s.peer = s.ns.Veth(t, "eth0", "peer")
	s.object = filepath.Join(t.TempDir(), "others.o")
	if err := os.WriteFile(s.object, _OthersBytes, 0o600); err != nil {
		t.Fatal(err)
	}
	s.open()
	s.findNamespace()
	var err error
	s.ns.Do(func() { s.send, err = frames.NewSender(s.peer) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.send.Close() })
	return s
}

// open opens the agent's datapath again.
func (s *sharedHook) open() {
	s.t.Helper()
	var d *datapath.Datapath
	var err error
	s.ns.Do(func() { d, err = datapath.Open(s.bpffs, "boot") })
	if err != nil {
		s.t.Fatal(err)
	}
	s.datapath = d
	s.t.Cleanup(func() { d.Close() })
}

// findNamespace finds the folder of the network namespace by counting on another interface for a moment.
func (s *sharedHook) findNamespace() {
	s.t.Helper()
	if err := s.attach(plan.Attachment{Index: s.peer, Name: "peer", Mode: plan.Generic}); err != nil {
		s.t.Fatal(err)
	}
	s.namespace = filepath.Dir(s.attached()[0].Pin)
	s.leave()
}

// folder returns the folder of the pins of eth0.
func (s *sharedHook) folder() string { return filepath.Join(s.namespace, strconv.Itoa(s.index)) }

func (s *sharedHook) wish(mode plan.Mode) plan.Attachment {
	return plan.Attachment{Index: s.index, Name: "eth0", Mode: mode, ViaDispatcher: true}
}

// attach tries to join.
func (s *sharedHook) attach(a plan.Attachment) (err error) {
	s.ns.Do(func() { err = s.datapath.Attach(a) })
	return err
}

func (s *sharedHook) join() {
	s.t.Helper()
	if err := s.attach(s.wish(plan.Auto)); err != nil {
		s.t.Fatal(err)
	}
}

// attached is what the agent finds, none or one.
func (s *sharedHook) attached() (found []plan.Attachment) {
	s.t.Helper()
	var err error
	s.ns.Do(func() { found, err = s.datapath.Attached() })
	if err != nil {
		s.t.Fatal(err)
	}
	return found
}

// expectProgram checks the data of our program for the metrics, which are read independently of passes.
func (s *sharedHook) expectProgram() {
	s.t.Helper()
	var programs []plan.Program
	var err error
	s.ns.Do(func() { programs, err = s.datapath.Programs() })
	if err != nil {
		s.t.Fatal(err)
	}
	at := slices.IndexFunc(s.status(), func(l listed) bool { return ours.MatchString(l.name) })
	want := plan.Program{Map: s.attached()[0].Map, ID: s.hook().Program, ViaDispatcher: true, Tag: s.status()[at].tag}
	if !slices.Equal(programs, []plan.Program{want}) {
		s.t.Errorf("programs %+v, want %+v", programs, want)
	}
}

func (s *sharedHook) leave() {
	s.t.Helper()
	for _, a := range s.attached() {
		var err error
		s.ns.Do(func() { err = s.datapath.Detach(a) })
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// pass makes passes as an agent does, until there is nothing to do.
func (s *sharedHook) pass(wish ...plan.Attachment) {
	s.t.Helper()
	for range 5 {
		var err error
		s.ns.Do(func() {
			have, e := s.datapath.Attached()
			interfaces, e2 := links.Links{}.List()
			if err = errors.Join(e, e2); err != nil {
				return
			}
			attach, detach := plan.Diff(have, wish, interfaces)
			if len(attach)+len(detach) == 0 {
				err = errDone
				return
			}
			for _, a := range attach {
				if e := s.datapath.Attach(a); !errors.Is(e, plan.ErrPending) {
					err = errors.Join(err, e)
				}
			}
			for _, a := range detach {
				err = errors.Join(err, s.datapath.Detach(a))
			}
		})
		if errors.Is(err, errDone) {
			return
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
	s.t.Fatal("passes do not come to an end")
}

var errDone = errors.New("done")

// loader runs xdp-loader.
func (s *sharedHook) loader(args ...string) (out string, err error) {
	cmd := exec.Command("/usr/sbin/xdp-loader", args...)
	cmd.Env = append(append(os.Environ(), "LIBXDP_BPFFS="+s.bpffs), s.env...)
	var text []byte
	s.ns.Do(func() { text, err = cmd.CombinedOutput() })
	if err != nil {
		err = fmt.Errorf("xdp-loader %s: %w\n%s", strings.Join(args, " "), err, text)
	}
	return string(text), err
}

func (s *sharedHook) must(args ...string) string {
	s.t.Helper()
	out, err := s.loader(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *sharedHook) load(name string) {
	s.t.Helper()
	s.must("load", "-m", "native", "-n", name, "eth0", s.object)
}

func (s *sharedHook) unload(name string) {
	s.t.Helper()
	id, err := s.idOf(name)
	if err != nil {
		s.t.Fatal(err)
	}
	s.must("unload", "-i", id, "eth0")
}

// idOf returns the ID that xdp-loader lists for the program.
func (s *sharedHook) idOf(name string) (string, error) {
	out, err := s.loader("status", "eth0")
	if err != nil {
		return "", err
	}
	for _, m := range listing.FindAllStringSubmatch(out, -1) {
		if m[2] == name {
			return m[3], nil
		}
	}
	return "", fmt.Errorf("xdp-loader does not list %s:\n%s", name, out)
}

// listed is a program as xdp-loader status lists it.
type listed struct {
	name string
	prio int
	id   int
	tag  string
	goOn string // after which results the next one is called
}

// " =>              50     other_pass                       12       b590a6a72b2c4d6d  XDP_PASS"
var listing = regexp.MustCompile(`(?m)^ => +(\d+) +(\S+) +(\d+) +([0-9a-f]{16}) +(\S+)`)

// status returns the programs in the order in which they are called.
func (s *sharedHook) status() (programs []listed) {
	s.t.Helper()
	for _, m := range listing.FindAllStringSubmatch(s.must("status", "eth0"), -1) {
		prio, _ := strconv.Atoi(m[1])
		id, _ := strconv.Atoi(m[3])
		programs = append(programs, listed{m[2], prio, id, m[4], m[5]})
	}
	return programs
}

// expect checks what xdp-loader lists, by the beginnings of names.
func (s *sharedHook) expect(names ...string) {
	s.t.Helper()
	got := s.status()
	if !slices.EqualFunc(got, names, func(l listed, name string) bool { return strings.HasPrefix(l.name, name) }) {
		s.t.Fatalf("xdp-loader lists %v, want %q\n%s", got, names, s.must("status"))
	}
}

// expectNothing checks that the hook is free and nothing is left.
func (s *sharedHook) expectNothing() {
	s.t.Helper()
	if hook := s.hook(); hook != (plan.Hook{}) {
		s.t.Errorf("on the hook is %v", hook)
	}
	for _, folder := range []string{"xdp", "xdp-operator"} {
		if entries, _ := os.ReadDir(filepath.Join(s.bpffs, folder)); len(entries) != 0 {
			s.t.Errorf("in %s is left %v", folder, entries)
		}
	}
}

func (s *sharedHook) hook() (hook plan.Hook) {
	s.t.Helper()
	var interfaces []plan.Interface
	var err error
	s.ns.Do(func() { interfaces, err = links.Links{}.List() })
	if err != nil {
		s.t.Fatal(err)
	}
	for _, i := range interfaces {
		if i.Index == s.index {
			return i.Hook
		}
	}
	return plan.Hook{}
}

// folders returns the names of the dispatchers' folders.
func (s *sharedHook) folders() (names []string) {
	entries, _ := os.ReadDir(filepath.Join(s.bpffs, "xdp"))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// traffic sends frames of every common kind, and checks that the named programs have seen all of them, and the others none.
// "ours" is the counting program.
func (s *sharedHook) traffic(counting ...string) {
	s.t.Helper()
	others := s.others()
	before, other := s.totals(), seen(s.t, others)
	var want traffic.Totals
	const each = 5
	n := uint64(0)
	for _, f := range frames.Common() {
		if err := s.send.Send(f.Data, each); err != nil {
			s.t.Fatal(err)
		}
		want[f.Class] = want[f.Class].Plus(traffic.Counts{Packets: each, Bytes: uint64(each * len(f.Data))})
		n += each
	}
	if !slices.Contains(counting, "ours") {
		want = traffic.Totals{}
	}
	var wrong string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		wrong = ""
		if got := s.totals().Since(before); got != want {
			wrong = fmt.Sprintf("we count %v of %v", got.Sum(), want.Sum())
		}
		now := seen(s.t, others)
		for _, name := range []string{"other_pass", "other_drop"} {
			wants := uint64(0)
			if slices.Contains(counting, name) {
				wants = n
			}
			if got := now[name] - other[name]; got != wants {
				wrong += fmt.Sprintf("; %s sees %d frames of %d", name, got, wants)
			}
		}
		if wrong == "" {
			return
		}
	}
	s.t.Fatal(wrong)
}

func (s *sharedHook) totals() (sum traffic.Totals) {
	s.t.Helper()
	var readings []traffic.Reading
	var err error
	s.ns.Do(func() { readings, err = s.datapath.Read() })
	if err != nil {
		s.t.Fatal(err)
	}
	for _, r := range readings {
		sum = sum.Plus(r.Totals)
	}
	return sum
}

// others returns the numbers of those of the others' programs that are listed.
func (s *sharedHook) others() map[string]*ebpf.Map {
	s.t.Helper()
	numbers := map[string]*ebpf.Map{}
	for _, l := range s.status() {
		if !strings.HasPrefix(l.name, "other_") {
			continue
		}
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(l.id))
		if err != nil {
			s.t.Fatal(err)
		}
		info, err := p.Info()
		p.Close()
		if err != nil {
			s.t.Fatal(err)
		}
		ids, _ := info.MapIDs()
		m, err := ebpf.NewMapFromID(ids[0])
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Cleanup(func() { m.Close() })
		numbers[l.name] = m
	}
	return numbers
}

// seen returns how many frames each of them has seen.
func seen(t *testing.T, numbers map[string]*ebpf.Map) map[string]uint64 {
	t.Helper()
	frames := map[string]uint64{}
	for name, m := range numbers {
		b, err := m.LookupBytes(uint32(0))
		if err != nil {
			t.Fatal(err)
		}
		// Of the two numbers in its .bss each program adds to one only.
		frames[name] = binary.NativeEndian.Uint64(b) + binary.NativeEndian.Uint64(b[8:])
	}
	return frames
}

// above creates an interface above the shared one, and returns the attachment to count it with a link.
func (s *sharedHook) above() plan.Attachment {
	s.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	l := &netlink.Bridge{LinkAttrs: attrs}
	s.ns.Do(func() {
		below, err := netlink.LinkByIndex(s.index)
		err = errors.Join(err, netlink.LinkAdd(l))
		if err == nil {
			err = netlink.LinkSetMasterByIndex(below, l.Index)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	})
	return plan.Attachment{Index: l.Index, Name: "br0", Mode: plan.Generic}
}

// few replaces the interface by one that has fewer receive queues than its peer has transmit queues.
func (s *sharedHook) few() {
	s.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.NumTxQueues, attrs.NumRxQueues = "few", 1, 1
	l := &netlink.Veth{LinkAttrs: attrs, PeerName: "many", PeerNumTxQueues: 2, PeerNumRxQueues: 2}
	s.ns.Do(func() {
		if err := netlink.LinkAdd(l); err != nil {
			s.t.Fatal(err)
		}
	})
	s.index = l.Index
}

func (s *sharedHook) deleteInterface() {
	s.t.Helper()
	s.ns.Do(func() {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			err = netlink.LinkDel(l)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	})
}
