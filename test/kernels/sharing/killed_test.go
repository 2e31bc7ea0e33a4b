// SPDX-License-Identifier: Apache-2.0

package sharing

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/dispatcher"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/bpf" //nolint:depguard // to be killed where the datapath would not be
)

// Whatever is changed, and wherever that is killed, the others go on, and the next pass of an agent ends as if nothing had
// happened.
func TestKilledAnywhere(t *testing.T) {
	for _, change := range []string{"join", "join the first", "leave", "leave the last"} {
		killed := true
		for step := 1; killed; step++ {
			t.Run(fmt.Sprintf("%s, killed at step %d", change, step), func(t *testing.T) {
				s := newSharedHook(t)
				others := []string{"other_pass"}
				if change == "join the first" || change == "leave the last" {
					others = nil
				} else {
					s.load("other_pass")
				}
				if strings.HasPrefix(change, "leave") {
					s.join()
				}
				killed = s.killed(strings.Fields(change)[0], step)
				if others != nil {
					if names := s.status(); !slices.ContainsFunc(names, func(l listed) bool { return l.name == "other_pass" }) {
						t.Fatalf("the other one is lost: %v", names)
					}
				}
				s.pass(s.wish(plan.Auto))
				s.expect(append([]string{"count_frame"}, others...)...)
				s.traffic(append([]string{"ours"}, others...)...)
				if folders := s.folders(); len(folders) != 1 {
					t.Errorf("pinned is %v", folders)
				}
				s.pass()
				s.traffic(others...)
				if others != nil {
					s.unload("other_pass")
				}
				s.expectNothing()
			})
		}
	}
}

// killed makes a process that changes the hook and ends at a step of it, or with false that there was no such step.
func (s *sharedHook) killed(change string, step int) bool {
	s.t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestIsKilled$", "-test.v")
	cmd.Env = append(os.Environ(), "CHANGE="+change, "STEP="+strconv.Itoa(step), "BPFFS="+s.bpffs, "FOLDER="+s.folder(), "INDEX="+strconv.Itoa(s.index))
	var out []byte
	var err error
	s.ns.Do(func() { out, err = cmd.CombinedOutput() })
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	return false
}

// TestIsKilled is the process of killed.
func TestIsKilled(t *testing.T) {
	at, _ := strconv.Atoi(os.Getenv("STEP"))
	index, _ := strconv.Atoi(os.Getenv("INDEX"))
	path := os.Getenv("BPFFS")
	if path == "" {
		if at != 0 || index != 0 {
			t.Fatal("where?")
		}
		return // there is nothing to change
	}
	spec, counts, hook := byHand(t, path, os.Getenv("FOLDER"), index)
	steps := 0
	hook.Between = func() {
		if steps++; steps == at {
			_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
			select {}
		}
	}
	var err error
	switch os.Getenv("CHANGE") {
	case "join":
		err = hook.Join(plan.Auto, dispatcher.Program{Name: bpf.Program, Load: func(place bpf.Place) (*ebpf.Program, error) {
			return bpf.NewExtension(spec, counts, place)
		}})
	case "leave":
		err = hook.Leave()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// byHand is what the datapath has of an interface: the program, the pinned counts, which it makes if there are none, and
// the hook. folder is that of the interface's pins.
func byHand(t *testing.T, bpffs, folder string, index int) (*ebpf.CollectionSpec, *ebpf.Map, dispatcher.Hook) {
	t.Helper()
	cpus, err := bpf.PossibleCPUs()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := bpf.Spec(cpus)
	if err != nil {
		t.Fatal(err)
	}
	counts, err := ebpf.LoadPinnedMap(filepath.Join(folder, "counts"), nil)
	if errors.Is(err, os.ErrNotExist) {
		counts, err = bpf.NewMap(spec)
		err = errors.Join(err, os.MkdirAll(folder, 0o700), counts.Pin(filepath.Join(folder, "counts")))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { counts.Close() })
	info, err := counts.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return spec, counts, dispatcher.Hook{Bpffs: bpffs, Index: index, Journal: folder, Maps: []uint32{uint32(id)}}
}

// Another version of the program, which counts alike.
func TestANewVersionTakesThePlaceOfTheOld(t *testing.T) {
	s := newSharedHook(t)
	s.load("other_pass")
	spec, counts, hook := byHand(t, s.bpffs, s.folder(), s.index)
	code := spec.Programs[bpf.Program].Instructions
	spec.Programs[bpf.Program].Instructions = slices.Insert(code, 1, asm.Mov.Imm(asm.R0, 0))
	var err error
	s.ns.Do(func() {
		err = hook.Join(plan.Auto, dispatcher.Program{Name: bpf.Program, Load: func(place bpf.Place) (*ebpf.Program, error) {
			return bpf.NewExtension(spec, counts, place)
		}})
	})
	if err != nil {
		t.Fatal(err)
	}
	s.traffic("ours", "other_pass")
	before, old := s.totals(), s.status()
	if found := s.attached(); len(found) != 1 || !found[0].Outdated {
		t.Fatalf("attached is %+v", found)
	}
	s.pass(s.wish(plan.Auto))
	s.expect("count_frame", "other_pass")
	now, after := s.status(), s.totals()
	if now[0].id == old[0].id || now[1] != old[1] || after != before {
		t.Errorf("%v became %v, and %v %v", old, now, before.Sum(), after.Sum())
	}
	s.traffic("ours", "other_pass")
}

// Both sides come and go at the same time, again and again, and nobody is lost.
func TestBothAtTheSameTime(t *testing.T) {
	s := newSharedHook(t)
	s.load("other_drop") // it stays
	const rounds = 5
	theirs := make(chan error, 1)
	go func() {
		for range rounds {
			// libxdp looks which dispatcher there is before it takes the lock, and gives up if that one is not there any
			// more when it has it.
			err := again(func() error {
				_, err := s.loader("load", "-m", "native", "-n", "other_pass", "eth0", s.object)
				return err
			})
			if err == nil {
				err = again(func() error {
					id, err := s.idOf("other_pass")
					if err == nil {
						_, err = s.loader("unload", "-i", id, "eth0")
					}
					return err
				})
			}
			if err != nil {
				theirs <- err
				return
			}
		}
		theirs <- nil
	}()
	for range rounds {
		s.join()
		if found := s.attached(); len(found) != 1 || !found[0].ViaDispatcher {
			t.Errorf("attached is %v", found)
		}
		s.leave()
	}
	if err := <-theirs; err != nil {
		t.Error(err)
	}
	s.expect("other_drop")
	s.traffic("other_drop")
	s.unload("other_drop")
	s.expectNothing()
}

// again tries several times.
func again(try func() error) (err error) {
	for range 10 {
		if err = try(); err == nil {
			return nil
		}
	}
	return err
}
