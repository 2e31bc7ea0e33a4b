// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"testing"

	"github.com/xdp-operator/xdp-operator/api/traffic"
)

func TestAll(t *testing.T) {
	names := map[string]bool{}
	classes := map[traffic.Class]bool{}
	for _, f := range All() {
		if f.Name == "" || names[f.Name] {
			t.Errorf("the name %q is missing or not its own", f.Name)
		}
		names[f.Name] = true
		classes[f.Class] = true
		if n := len(f.Data); n < 14 || n > 1514+4*5 {
			t.Errorf("%s: %d bytes", f.Name, n)
		}
		if f.Class != traffic.ClassMalformed && f.Cuts[len(f.Cuts)-1] > len(f.Data) {
			t.Errorf("%s: its headers end at %d, the frame at %d", f.Name, f.Cuts[len(f.Cuts)-1], len(f.Data))
		}
	}
	for c := range traffic.Class(traffic.NumClasses) {
		if !classes[c] {
			t.Errorf("no frame of class %s", c)
		}
	}
}
