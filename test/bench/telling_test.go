// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"testing"

	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

func TestMeasureAggregateTimes(t *testing.T) {
	namespace := netns.New(t)
	which := loadable(t, empty, generic, wireKfunc, wireHelper)
	namespace.Do(func() {
		measured, frames, err := measureAggregateTimes(t.Context(), effort{loads: 1, rounds: 1}, which)
		if err != nil {
			t.Fatal(err)
		}
		c := measured.costs()
		for _, i := range which {
			if math.IsNaN(c[i].ns) {
				t.Errorf("%s was not measured", i)
			}
		}
		if len(which) > 2 && frames < 2 { // of kernels without BTF nothing is known
			t.Errorf("%.1f frames in a large segment", frames)
		}
	})
}

func TestMissingFramesOfStreamAreFound(t *testing.T) {
	i := loadFor(t, plain)
	i.runOnce(t, kinds()[1].frame)
	bytes := uint64(len(kinds()[1].frame.Data))
	if err := i.countedStream(bytes); err != nil {
		t.Error(err)
	}
	if err := i.countedStream(bytes + 1); err == nil {
		t.Error("a byte is missing, and nothing is said")
	}
}
