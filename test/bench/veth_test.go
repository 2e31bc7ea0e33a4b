// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

func TestSendLiveFrames(t *testing.T) {
	namespace := netns.New(t)
	k := kinds()[0]
	const n, times = 200, 50 // fewer frames than the ring of a veth has (256), so that none is dropped on a busy machine
	if err := settle(); err != nil {
		t.Fatal(err)
	}
	live := knowsFragments(t) // live frames came with them, in Linux 5.18; without them nothing is sent, with an error
	namespace.Do(func() {
		w, err := newVethPair()
		if err != nil {
			t.Fatal(err)
		}
		receivers := []*receiver{{}}
		for _, c := range loadable(t, empty, xdp1, plain, jumbo) {
			receivers = append(receivers, &receiver{instance: loadFor(t, c)})
		}
		for range 3 {
			for _, r := range receivers {
				if err := r.place(w); err != nil {
					t.Fatalf("%s: %v", r, err)
				}
				for range times {
					_, err := r.receive(w, k.frame.Data, n)
					if live && err != nil || !live && !errors.Is(err, unix.EINVAL) {
						t.Fatalf("%s: %v", r, err)
					}
				}
			}
		}
		for _, r := range receivers[1:] {
			if err := r.countedAll(k); live && err != nil {
				t.Error(err)
			}
		}
		if err := w.close(); err != nil {
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
}

func TestMissingFrameIsFound(t *testing.T) {
	r := receiver{instance: loadFor(t, plain), sent: 2}
	r.runOnce(t, kinds()[0].frame)
	if err := r.countedAll(kinds()[0]); err == nil {
		t.Error("one of two is all that was counted, and nothing is said")
	}
}
