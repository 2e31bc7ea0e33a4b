// SPDX-License-Identifier: Apache-2.0

package sharing

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
)

func TestOrderOfAttachAndDetach(t *testing.T) {
	for name, steps := range map[string]func(s *sharedHook){
		"they are first and go first": func(s *sharedHook) {
			s.load("other_pass")
			s.traffic("other_pass")
			s.join()
			s.expect("count_frame", "other_pass")
			s.traffic("ours", "other_pass")
			s.unload("other_pass")
			s.expect("count_frame")
			s.traffic("ours")
			s.leave()
		},
		"they are first and go last": func(s *sharedHook) {
			s.load("other_pass")
			s.join()
			s.traffic("ours", "other_pass")
			s.leave()
			s.expect("other_pass")
			s.traffic("other_pass")
			s.unload("other_pass")
		},
		"we are first and go first": func(s *sharedHook) {
			s.join()
			s.expect("count_frame")
			s.traffic("ours")
			s.load("other_pass")
			s.expect("count_frame", "other_pass")
			s.traffic("ours", "other_pass")
			s.leave()
			s.expect("other_pass")
			s.traffic("other_pass")
			s.unload("other_pass")
		},
		"we are first and go last": func(s *sharedHook) {
			s.join()
			s.load("other_pass")
			s.traffic("ours", "other_pass")
			s.unload("other_pass")
			s.expect("count_frame")
			s.traffic("ours")
			s.leave()
		},
		"we go when two others stay": func(s *sharedHook) {
			s.load("other_pass")
			s.join()
			s.load("other_drop")
			s.expect("count_frame", "other_drop", "other_pass")
			s.leave()
			s.expect("other_drop", "other_pass")
			s.traffic("other_drop")
			s.unload("other_drop")
			s.traffic("other_pass")
			s.unload("other_pass")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSharedHook(t)
			steps(s)
			s.expectNothing()
		})
	}
}

// A frame that another program drops was received and must be counted.
func TestDroppedFramesAreCounted(t *testing.T) {
	s := newSharedHook(t)
	s.load("other_drop")
	s.join()
	s.traffic("ours", "other_drop")
	l := s.status()[0]
	if !ours.MatchString(l.name) || l.prio != 1 || l.goOn != "XDP_PASS" {
		t.Errorf("xdp-loader lists %v as the first", l)
	}
}

func TestAgentRestart(t *testing.T) {
	s := newSharedHook(t)
	s.load("other_pass")
	s.pass(s.wish(plan.Auto))
	before := s.status()
	found := s.attached()
	if len(found) != 1 || !found[0].ViaDispatcher || found[0].Index != s.index || found[0].Program != s.hook().Program {
		t.Errorf("attached is %+v, on the hook is %v", found, s.hook())
	}
	s.open() // as a new agent does
	s.pass(s.wish(plan.Auto))
	if after := s.status(); after[0] != before[0] || after[1] != before[1] {
		t.Errorf("a restart changed %v to %v", before, after)
	}
	s.traffic("ours", "other_pass")
	s.expectProgram()

	s.load("other_drop") // another user of libxdp, which creates another dispatcher
	s.pass(s.wish(plan.Auto))
	if after := s.status(); after[0] != before[0] {
		t.Errorf("that somebody joins changed %v to %v", before[0], after[0])
	}
	s.expectProgram()
	s.traffic("ours", "other_drop")
}

func TestUnsupportedPrograms(t *testing.T) {
	exclusive := func(s *sharedHook, mode plan.Mode) plan.Attachment {
		a := s.wish(mode)
		a.ViaDispatcher = false
		return a
	}
	for name, tc := range map[string]struct {
		before func(s *sharedHook)
		wish   func(s *sharedHook) plan.Attachment
		want   error
		says   string
	}{
		"a program without a dispatcher": {
			func(s *sharedHook) { s.env = []string{"LIBXDP_SKIP_DISPATCHER=1"}; s.load("other_pass") },
			func(s *sharedHook) plan.Attachment { return s.wish(plan.Auto) }, plan.ErrHookInUse, "other_pass is not a dispatcher",
		},
		"a dispatcher in another mode": {
			func(s *sharedHook) { s.load("other_pass") },
			func(s *sharedHook) plan.Attachment { return s.wish(plan.Generic) }, plan.ErrHookInUse, "attached in Native mode",
		},
		"a dispatcher, and we do not want to share": {
			func(s *sharedHook) { s.load("other_pass") },
			func(s *sharedHook) plan.Attachment { return exclusive(s, plan.Native) }, plan.ErrHookInUse, "",
		},
		"a dispatcher that pins its programs elsewhere": {
			func(s *sharedHook) {
				s.load("other_pass")
				if err := os.Rename(s.bpffs+"/xdp", s.bpffs+"/elsewhere"); err != nil {
					s.t.Fatal(err)
				}
			},
			func(s *sharedHook) plan.Attachment { return s.wish(plan.Auto) }, plan.ErrDispatcherRefused, "not all of the dispatcher's programs are pinned",
		},
		"an interface that is gone": {
			func(s *sharedHook) { s.deleteInterface() },
			func(s *sharedHook) plan.Attachment { return s.wish(plan.Auto) }, plan.ErrInterfaceGone, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSharedHook(t)
			tc.before(s)
			hook, folders := s.hook(), s.folders()
			err := s.attach(tc.wish(s))
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("attach: %v, want %v and %q", err, tc.want, tc.says)
			}
			if s.hook() != hook || len(s.folders()) != len(folders) || len(s.attached()) != 0 {
				t.Errorf("on the hook is %v and pinned %v; it was %v and %v; attached is %v", s.hook(), s.folders(), hook, folders, s.attached())
			}
		})
	}
}

// Since Linux 5.15, programs below an interface that has a program cannot be changed, except through links. Attached programs continue.
func TestUpperDeviceHasProgram(t *testing.T) {
	s := newSharedHook(t)
	above := s.above()
	if err := s.attach(above); err != nil {
		t.Fatal(err)
	}
	exclusive := s.wish(plan.Native)
	exclusive.ViaDispatcher = false
	refused := s.attach(exclusive)
	s.pass(above)
	if err := s.attach(s.wish(plan.Auto)); errors.Is(err, plan.ErrUpperHasProgram) != (refused != nil) || (err != nil) != (refused != nil) {
		t.Errorf("join: %v, as a link: %v", err, refused)
	} else if err != nil && !strings.Contains(err.Error(), "br0 has id") {
		t.Errorf("join: %v, which does not say which", err)
	}
	s.pass()

	s.load("other_pass")
	s.join()
	if err := s.attach(above); err != nil {
		t.Fatal(err)
	}
	if refused != nil {
		for _, a := range s.attached() {
			if !a.ViaDispatcher {
				continue
			}
			var err error
			s.ns.Do(func() { err = s.datapath.Detach(a) })
			if !errors.Is(err, plan.ErrUpperHasProgram) {
				t.Errorf("leave: %v", err)
			}
		}
		s.expect("count_frame", "other_pass")
	}
	s.traffic("ours", "other_pass")
	var err error
	s.ns.Do(func() { _, err = s.datapath.Cleanup() })
	if err != nil {
		t.Fatal(err)
	}
	s.expect("other_pass")
	s.unload("other_pass")
	s.expectNothing()
}

// The first program on a hook falls back from Auto to generic mode if the driver rejects native mode.
func TestTooFewQueues(t *testing.T) {
	s := newSharedHook(t)
	s.few()
	if err := s.attach(s.wish(plan.Native)); !errors.Is(err, plan.ErrNotEnoughQueues) {
		t.Errorf("attach: %v, want %v", err, plan.ErrNotEnoughQueues)
	}
	s.pass(s.wish(plan.Auto))
	if hook := s.hook(); hook.Mode != plan.Generic {
		t.Errorf("on the hook is %v", hook)
	}
	s.pass()
	s.expectNothing()
}

// Agents do not have the capability SYS_ADMIN by default.
func TestWithoutSysAdmin(t *testing.T) {
	s := newSharedHook(t)
	s.load("other_pass")
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked, because the thread has dropped the capability
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err = unix.Capget(&header, &data[0]); err != nil {
			return
		}
		data[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
		if err = unix.Setns(int(s.ns.File().Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		if err = unix.Capset(&header, &data[0]); err != nil {
			return
		}
		err = s.datapath.Attach(s.wish(plan.Auto))
	}()
	<-done
	if !errors.Is(err, plan.ErrPermission) || !strings.Contains(err.Error(), "SYS_ADMIN") {
		t.Errorf("attach: %v", err)
	}
	s.expect("other_pass")
	s.traffic("other_pass")
}

func TestCleanupKeepsOtherPrograms(t *testing.T) {
	s := newSharedHook(t)
	s.load("other_pass")
	s.join()
	s.load("other_drop")
	var err error
	s.ns.Do(func() { _, err = s.datapath.Cleanup() })
	if err != nil {
		t.Fatal(err)
	}
	s.expect("other_drop", "other_pass")
	s.unload("other_drop")
	s.traffic("other_pass")
	s.unload("other_pass")
	s.expectNothing()
}

func TestChangeCoexistence(t *testing.T) {
	s := newSharedHook(t)
	alone := s.wish(plan.Auto)
	alone.ViaDispatcher = false
	s.pass(alone)
	s.traffic("ours")
	if _, err := s.loader("load", "-m", "native", "-n", "other_pass", "eth0", s.object); err == nil {
		t.Error("xdp-loader gets a hook that is held by a link")
	}
	s.pass(s.wish(plan.Auto))
	s.load("other_pass")
	s.traffic("ours", "other_pass")
	s.unload("other_pass")
	s.pass(alone)
	s.traffic("ours")
	s.pass()
	s.expectNothing()
}

// Deleting an interface removes its dispatcher, but not the pins.
func TestInterfaceDeleted(t *testing.T) {
	s := newSharedHook(t)
	s.load("other_pass")
	s.join()
	s.deleteInterface()
	s.pass()
	if folders := s.folders(); len(folders) != 0 {
		t.Errorf("pinned is %v", folders)
	}
}

// Another program replaces the dispatcher by force. Counting stops, and the remaining pins are removed.
func TestDispatcherRemoved(t *testing.T) {
	s := newSharedHook(t)
	s.join()
	s.must("unload", "--all", "eth0")
	s.pass()
	s.expectNothing()
}

func TestDispatcher(t *testing.T) {
	s := newSharedHook(t)
	s.load("other_pass")
	s.join()
	s.traffic("ours", "other_pass")
	if err := report.Write(os.Stdout, report.Line{Finding: report.Finding{Feature: "Dispatcher", Is: true}}); err != nil {
		t.Fatal(err)
	}
}
