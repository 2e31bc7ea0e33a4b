// SPDX-License-Identifier: Apache-2.0

package classify

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

func TestEveryKindOfFrameHasItsClass(t *testing.T) {
	for _, f := range frames.All() {
		if got := Frame(f.Data); got != f.Class {
			t.Errorf("%s: got %s, want %s", f.Name, got, f.Class)
		}
	}
}

func TestFramesCutAnywhereHaveTheirClass(t *testing.T) {
	for _, f := range frames.All() {
		for n := 14; n < len(f.Data); n++ {
			if cut := f.Cut(n); Frame(cut.Data) != cut.Class {
				t.Errorf("%s: got %s, want %s", cut.Name, Frame(cut.Data), cut.Class)
			}
		}
		for n := range 14 {
			if got := Frame(f.Data[:n]); got != traffic.ClassMalformed {
				t.Errorf("%s, cut at %d: got %s", f.Name, n, got)
			}
		}
	}
}

// named returns the frame of that name.
func named(t *testing.T, name string) []byte {
	t.Helper()
	for _, f := range frames.All() {
		if f.Name == name {
			return f.Data
		}
	}
	t.Fatalf("no frame is called %q", name)
	return nil
}

func TestDissectSaysHowTheClassComesAbout(t *testing.T) {
	for name, want := range map[string]Dissection{
		"TCP over IPv4":                                {Class: traffic.IP(traffic.IPv4, 6), Type: 0x0800},
		"UDP over IPv4 in four tags":                   {Class: traffic.IP(traffic.IPv4, 17), Tags: 4, Type: 0x0800},
		"UDP over IPv4 in five tags":                   {Class: traffic.ClassOther, Tags: 4, Type: 0x8100},
		"an ARP reply in three tags":                   {Class: traffic.ClassARP, Tags: 3, Type: 0x0806},
		"IPv4 with version 6 in a VLAN":                {Class: traffic.ClassMalformed, Defect: WrongVersion, Tags: 1, Type: 0x0800},
		"IPv4 with IHL 4":                              {Class: traffic.ClassMalformed, Defect: ShortHeader, Type: 0x0800},
		"IPv6 with version 7":                          {Class: traffic.ClassMalformed, Defect: WrongVersion, Type: 0x86DD},
		"IPv6 with 9 extension headers":                {Class: traffic.ClassMalformed, Defect: TooManyExtensions, Type: 0x86DD, Extensions: []byte{60, 60, 60, 60, 60, 60, 60, 60}},
		"a non-first IPv6 fragment":                    {Class: traffic.IP(traffic.IPv6, 17), Type: 0x86DD, Extensions: []byte{44}},
		"ESP behind AH":                                {Class: traffic.IP(traffic.IPv6, 50), Type: 0x86DD, Extensions: []byte{51}},
		"ethertype 0xFFFF":                             {Class: traffic.ClassOther, Type: 0xFFFF},
		"IPv6 with hop-by-hop options":                 {Class: traffic.IP(traffic.IPv6, 6), Type: 0x86DD, Extensions: []byte{0}},
		"an Ethernet header alone, of a VLAN":          {Class: traffic.ClassMalformed, Defect: Truncated, Tags: 1, Type: 0x8100},
		"IPv4 with IHL 15 and its last option cut off": {Class: traffic.ClassMalformed, Defect: Truncated, Type: 0x0800},
		"extension header 43 longer than the frame":    {Class: traffic.ClassMalformed, Defect: Truncated, Type: 0x86DD, Extensions: []byte{43}},
	} {
		frame := named(t, name)
		got := Dissect(frame)
		if got.Network != nil {
			if want := frame[14+4*got.Tags:]; string(got.Network) != string(want) {
				t.Errorf("%s: what follows the type begins elsewhere", name)
			}
			got.Network = nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestPacketsThatTheNodeSendsAreNoFrames(t *testing.T) {
	for _, p := range frames.SentByNode() {
		if !SentByNode(p.Data) {
			t.Errorf("%s: taken for a frame", p.Name)
		}
		if got := Frame(p.Data); got != p.Class {
			t.Errorf("%s: as a frame it is %s, want %s", p.Name, got, p.Class)
		}
	}
	for _, f := range append(frames.All(), frames.LikeSentByNode()...) {
		if SentByNode(f.Data) {
			t.Errorf("%s: taken for a packet that the node sends", f.Name)
		}
		if got := Frame(f.Data); got != f.Class {
			t.Errorf("%s: got %s, want %s", f.Name, got, f.Class)
		}
	}
}
