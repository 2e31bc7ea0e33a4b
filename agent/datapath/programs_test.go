// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
)

func TestPrograms(t *testing.T) {
	h := newHost(t)
	only := func() plan.Program {
		t.Helper()
		programs, err := h.Programs()
		if err != nil || len(programs) != 1 {
			t.Fatalf("programs %+v and error %v, want one", programs, err)
		}
		return programs[0]
	}
	if programs, err := h.Programs(); err != nil || len(programs) != 0 {
		t.Fatalf("programs %+v and error %v before anything is attached", programs, err)
	}
	h.mustAttach(t, plan.Native)
	attached, err := h.Attached()
	if err != nil {
		t.Fatal(err)
	}
	if p := only(); p.Map != attached[0].Map || p.ID != attached[0].Program || p.Tag != h.ProgramTag() || p.Tag == "" || p.Runs != 0 {
		t.Errorf("program %+v of attachment %+v with tag %s", p, attached[0], h.ProgramTag())
	}

	statistics, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Fatal(err)
	}
	h.traffic(t, 3)
	h.expectCounted(t)
	statistics.Close()
	// On a busy machine a frame may be counted before the kernel has noted the run.
	for deadline := time.Now().Add(5 * time.Second); only().Runs < h.sent.Sum().Packets && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if p := only(); p.Runs != h.sent.Sum().Packets || p.RunTime <= 0 {
		t.Errorf("%d runs in %v for %d frames", p.Runs, p.RunTime, h.sent.Sum().Packets)
	}

	l, err := link.LoadPinnedLink(h.folder(h.index).linkPin(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Detach(); err != nil {
		t.Fatal(err)
	}
	if p := only(); p.ID != 0 || p.Tag != "" || p.Runs != 0 || p.Map != attached[0].Map {
		t.Errorf("program %+v although the link was cut", p)
	}
}
