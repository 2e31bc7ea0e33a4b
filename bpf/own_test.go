// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/test/util/classify"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// Only generic XDP sees packets that the node itself sends. So only its program recognizes them. The other programs count
// them as the frames that they look like.
func TestGenericProgramDoesNotCountWhatTheNodeSends(t *testing.T) {
	for _, v := range variants(t) {
		t.Run(v.String(), func(t *testing.T) {
			c := load(t, v)
			for _, p := range frames.SentByNode() {
				want := []growth{{uint64(p.Class), 1, uint64(len(p.Data))}}
				if v.seesOwnPackets() {
					want = nil
				}
				if diff := cmp.Diff(want, c.grown(t, p)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", p.Name, diff)
				}
			}
		})
	}
}

func TestCountWhatLooksLikeAPacketThatTheNodeSends(t *testing.T) {
	eachVariant(t, func(t *testing.T, c *counter) {
		for _, f := range frames.LikeSentByNode() {
			c.expect(t, f)
		}
	})
}

// Each of the first bytes decides: whatever a single bit is changed to, program and package classify agree.
func TestEveryBitOfAPacketThatTheNodeSends(t *testing.T) {
	step := 1
	if testing.Short() { // a run takes 5 ms on Linux 5.10
		step = 7
	}
	j := newJudge(t, generic)
	for _, p := range append(frames.SentByNode(), frames.LikeSentByNode()...) {
		for bit := 0; bit < 8*min(len(p.Data), 48); bit += step {
			p.Data[bit/8] ^= 1 << (bit % 8)
			if err := j.check(p.Data); err != nil {
				t.Fatalf("%s, bit %d changed: %v", p.Name, bit, err)
			}
			p.Data[bit/8] ^= 1 << (bit % 8)
		}
		for n := minFrame; n < min(len(p.Data), 80); n += step {
			if err := j.check(p.Data[:n]); err != nil {
				t.Fatalf("%s, cut at %d: %v", p.Name, n, err)
			}
		}
	}
	if err := j.checkAll(); err != nil {
		t.Fatal(err)
	}
}

// The comparison must find a program that counts what the node sends, and one that does not count a frame.
func TestComparisonFindsOwnPackets(t *testing.T) {
	p := frames.SentByNode()[0]
	for name, j := range map[string]*comparison{
		"the program does not count a frame":          {counter: load(t, generic)},
		"the program counts a packet that was passed": {counter: load(t, ordinary), generic: true},
	} {
		j.cpus = len(j.table) / BytesPerCPU
		err := j.check(p.Data)
		if err == nil {
			err = j.checkAll()
		}
		if err == nil {
			t.Errorf("%s: not found", name)
		}
		if !classify.SentByNode(p.Data) {
			t.Errorf("%s is no packet that the node sends", p.Name)
		}
	}
}
