// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/test/util/bpffs"
	"github.com/xdp-operator/xdp-operator/test/util/golden"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

// steady returns flows that are the same in each round: Gbit/s of TCP, and a tenth of it as million frames per second.
func steady(rates map[attached]float64) *flows {
	f := &flows{}
	for a, rate := range rates {
		for range 3 {
			f[a] = append(f[a], flow{gigabits: rate, skbBytes: 50_000, datagrams: 1e5 * rate})
		}
	}
	return f
}

func TestShareWithinRound(t *testing.T) {
	f := &flows{}
	for _, none := range []float64{10, 40, 5} { // the speed of the machine changes from round to round
		f[nothing] = append(f[nothing], flow{gigabits: none})
		f[emptyNative] = append(f[emptyNative], flow{gigabits: none / 2})
	}
	if got := f.share(emptyNative, nothing, gigabits); got.median != 0.5 {
		t.Errorf("half in each round is %v in all", got)
	}
}

func TestJudgeAuto(t *testing.T) {
	for name, tc := range map[string]struct {
		native, generic, auto float64
		want                  []string
	}{
		"as good as generic mode, which is better": {3, 9, 9, []string{
			"1.00 (1.00..1.00) >= 0.95 of the better empty program  kept", "0.90 (0.90..0.90) >= 0.8 of none  kept",
		}},
		"as bad as native mode": {3, 9, 3, []string{
			"0.33 (0.33..0.33) >= 0.95 of the better empty program  MISSED", "0.30 (0.30..0.30) >= 0.8 of none  MISSED",
		}},
		"native mode is better": {9, 3, 9, []string{
			"1.00 (1.00..1.00) >= 0.95 of the better empty program  kept", "0.90 (0.90..0.90) >= 0.8 of none  kept",
		}},
	} {
		f := steady(map[attached]float64{nothing: 10, emptyNative: tc.native, emptyGeneric: tc.generic, oursAuto: tc.auto})
		got := judgeAuto(&ledger{}, f, "here", autoOfEmpty, autoOfNone)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestTableOfFlows(t *testing.T) {
	f := steady(map[attached]float64{nothing: 20, emptyNative: 6, emptyGeneric: 18, oursNative: 6, oursGeneric: 17, oursAuto: 17})
	for round := range f[oursAuto] {
		f[oursAuto][round].mode = plan.Generic
	}
	var out bytes.Buffer
	if err := writeFlows(&out, f, judgeAuto(&ledger{}, f, "here", autoOfEmpty, autoOfNone)); err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "testdata/flows.txt", out.String())
}

func TestMeasureFlows(t *testing.T) {
	namespace, pins := netns.New(t), bpffs.Mount(t)
	for _, a := range []arriving{aggregates, singleFrames} {
		t.Run(a.String(), func(t *testing.T) {
			namespace.Do(func() {
				v, err := newVethPath(t.Context(), a)
				if err != nil {
					t.Fatal(err)
				}
				short := transfer{rounds: 1, warmUp: 50 * time.Millisecond, stream: 20 * time.Millisecond, datagrams: 20 * time.Millisecond}
				f, err := measureFlows(t.Context(), v.path, pins, short)
				if err != nil {
					t.Fatal(err)
				}
				modes := [attachments]plan.Mode{
					emptyNative: plan.Native, emptyGeneric: plan.Generic, oursNative: plan.Native, oursGeneric: plan.Generic,
				}
				for a := range attachments {
					if len(f[a]) != 1 && a != emptyTCX { // Linux 6.6
						t.Errorf("%s: %d rounds", a, len(f[a]))
					}
					for _, one := range f[a] {
						if one.gigabits <= 0 || one.datagrams <= 0 {
							t.Errorf("%s: %+v", a, one)
						}
						if one.mode != modes[a] && a != oursAuto || a == oursAuto && one.mode == "" {
							t.Errorf("%s is attached in mode %q", a, one.mode)
						}
					}
				}
				const oneFrame = 1514
				large := f.values(nothing, skbBytes)[0] > oneFrame && f.values(emptyGeneric, skbBytes)[0] > oneFrame
				if large != (a == aggregates) {
					t.Errorf("skbs of %v bytes without a program and %v in generic mode",
						f.values(nothing, skbBytes), f.values(emptyGeneric, skbBytes))
				}
				if native := f.values(emptyNative, skbBytes)[0]; native > oneFrame {
					t.Errorf("skbs of %v bytes in native mode", native)
				}
				if err := v.close(); err != nil {
					t.Error(err)
				}
				left, err := netlink.LinkList()
				if err != nil {
					t.Fatal(err)
				}
				if len(left) != 1 { // lo
					t.Errorf("%d interfaces are left", len(left))
				}
			})
		})
	}
}

func TestMissingCountsAreFound(t *testing.T) {
	namespace, pins := netns.New(t), bpffs.Mount(t)
	namespace.Do(func() {
		v, err := newVethPath(t.Context(), aggregates)
		if err != nil {
			t.Fatal(err)
		}
		r, err := newReceiving(v.path, pins)
		if err != nil {
			t.Fatal(err)
		}
		detach, err := r.attach(oursAuto)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.checkCounts(0, 0); err != nil {
			t.Errorf("nothing was sent, and yet: %v", err)
		}
		if err := r.checkCounts(1000, 0); err == nil {
			t.Error("1000 bytes of TCP are missing, and nothing is said")
		}
		if err := r.checkCounts(0, 1000); err == nil {
			t.Error("1000 bytes of UDP are missing, and nothing is said")
		}
		for _, end := range []func() error{detach, r.close, v.close} {
			if err := end(); err != nil {
				t.Error(err)
			}
		}
	})
}
