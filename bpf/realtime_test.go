// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

func TestVariantsForPreemptRT(t *testing.T) {
	for version, want := range map[string]bool{
		"#1 SMP PREEMPT_RT Debian 7.3.4-1~bpo13+1 (2026-11-20)": true,
		"#1 SMP PREEMPT_DYNAMIC Debian 6.12.118-1 (2026-11-18)": false,
		"#1 SMP PREEMPT_RTX": false,
		"":                   false,
	} {
		if got := isRealtime(version); got != want {
			t.Errorf("%q: %t, want %t", version, got, want)
		}
	}
	for realtime, suffix := range map[bool]string{true: "_rt", false: ""} {
		spec, err := specFor(1, realtime)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for name, program := range spec.Programs {
			got[name] = program.Name
		}
		want := map[string]string{}
		for _, v := range []variant{ordinary, generic, frags, byKfunc, byHelper} {
			want[v.name] = v.name + suffix
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("realtime: %t (-want +got):\n%s", realtime, diff)
		}
	}
}

// Two threads run the program on one CPU. With PREEMPT_RT they preempt each other within the program, as two threads do that
// receive from two cards: BPF_PROG_TEST_RUN disables bottom halves as they do. The variants without atomic instructions lose about
// one count in a hundred then (Linux 7.3-rt in an emulator that checks for interrupts after each instruction, -singlestep).
func TestRunsThatPreemptEachOther(t *testing.T) {
	const threads, runs = 2, 300_000
	f := frames.Common()[0]
	for _, v := range variants(t) {
		if !v.realtime {
			continue
		}
		t.Run(v.String(), func(t *testing.T) {
			c := load(t, v)
			errs := make([]error, threads)
			var all sync.WaitGroup
			for i := range threads {
				all.Go(func() {
					if errs[i] = errors.Join(stayOn(0), blockSignals()); errs[i] == nil {
						_, errs[i] = c.program.Run(&ebpf.RunOptions{Data: f.Data, Repeat: runs})
					}
				})
			}
			all.Wait()
			for _, err := range errs {
				if err != nil {
					t.Fatal(err)
				}
			}
			j := &comparison{counter: c, cpus: len(c.table) / BytesPerCPU}
			j.want[f.Class].Packets, j.want[f.Class].Bytes = threads*runs, threads*runs*uint64(len(f.Data))
			if err := j.checkAll(); err != nil {
				t.Error(err)
			}
		})
	}
}

// blockSignals blocks the signals of the calling thread, on which the goroutine must stay. A signal would interrupt
// BPF_PROG_TEST_RUN, and the library would begin again, with more runs than were asked for.
func blockSignals() error {
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	return unix.PthreadSigmask(unix.SIG_SETMASK, &all, nil)
}
