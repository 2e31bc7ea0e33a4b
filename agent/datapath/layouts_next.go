// SPDX-License-Identifier: Apache-2.0

//go:build nextlayout

package datapath

import "github.com/xdp-operator/xdp-operator/api/traffic"

// layouts has one more layout than the released program, so that tests can migrate to it.
func layouts() []*layout { return []*layout{layout1(), layout2()} }

// layout2 is that of counter.h with NEXT_LAYOUT.
func layout2() *layout {
	l := &layout{version: 2, slots: 520}
	for n := range 256 {
		l.slot[traffic.IP(traffic.IPv4, uint8(n))] = 264 + n
		l.slot[traffic.IP(traffic.IPv6, uint8(n))] = 8 + n
	}
	l.slot[traffic.ClassMalformed], l.slot[traffic.ClassOther], l.slot[traffic.ClassARP] = 0, 1, 2
	return l
}
