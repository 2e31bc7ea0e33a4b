// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/util/bpffs"
	"github.com/xdp-operator/xdp-operator/test/util/classify"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

// withVethPair calls fn with a veth pair of the MTU in a new network namespace.
func withVethPair(t *testing.T, mtu int, fn func(*vethPair)) {
	t.Helper()
	dir := bpffs.Mount(t)
	netns.New(t).Do(func() {
		w, err := newVethPair(dir, mtu)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := w.close(); err != nil {
				t.Error(err)
			}
		}()
		fn(w)
	})
}

// tshark's results for these captures are recorded (testdata/README.md), so this test does not need tshark.
func TestRecordedCaptures(t *testing.T) {
	captures, err := filepath.Glob("testdata/*.pcap")
	if err != nil || len(captures) < 2 {
		t.Fatalf("captures: %q, %v", captures, err)
	}
	for _, capture := range captures {
		columns, err := os.ReadFile(strings.TrimSuffix(capture, ".pcap") + ".tshark")
		if err != nil {
			t.Fatal(err)
		}
		frames, err := readCapture(capture)
		if err != nil {
			t.Fatal(err)
		}
		for _, mtu := range []int{mtuFor(frames), largest} { // each uses another variant of the program
			withVethPair(t, mtu, func(w *vethPair) {
				var out bytes.Buffer
				if err := judge(&out, w, frames, columns); err != nil {
					t.Errorf("%s, MTU %d: %v\n%s", capture, mtu, err, &out)
				}
			})
		}
	}
}

func TestReplayFramesOfAnyLength(t *testing.T) {
	var capture []frame
	var want traffic.Totals
	for number, length := range []int{1500, 3520, 9014, 65535, longest} {
		f := frames.Common()[0]
		data := append(bytes.Clone(f.Data), make([]byte, length-len(f.Data))...)
		capture = append(capture, frame{number: number + 1, data: data, length: length})
		want[f.Class] = want[f.Class].Plus(traffic.Counts{Packets: 1, Bytes: uint64(length)})
	}
	withVethPair(t, mtuFor(capture), func(w *vethPair) {
		if got, err := w.replay(capture); err != nil || got != want {
			t.Errorf("counted %v, %v", got.NonZero(), err)
		}
	})
}

func TestDifferentClassIsFound(t *testing.T) {
	capture, err := readCapture("testdata/linux.pcap")
	if err != nil {
		t.Fatal(err)
	}
	recorded, err := os.ReadFile("testdata/linux.tshark")
	if err != nil {
		t.Fatal(err)
	}
	// The first TCP becomes UDP.
	wrong := bytes.Replace(recorded, []byte("\t4\t6\t"), []byte("\t4\t17\t"), 1)
	if bytes.Equal(wrong, recorded) {
		t.Fatal("no TCP in the capture")
	}
	withVethPair(t, largest, func(w *vethPair) {
		var out bytes.Buffer
		if err := judge(&out, w, capture, wrong); !errors.Is(err, errDifferent) {
			t.Errorf("not reported: %v\n%s", err, &out)
		}
		for _, want := range []string{"1 UNEXPLAINED\n  frame 40: IPv4/TCP, for tshark IPv4/UDP", "DIFFERENT"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("it does not say %q:\n%s", want, &out)
			}
		}
	})
}

func TestDifferentBytesAreFound(t *testing.T) {
	capture, err := readCapture("testdata/linux.pcap")
	if err != nil {
		t.Fatal(err)
	}
	capture = capture[:20]
	var opinions []opinion
	for _, f := range capture {
		opinions = append(opinions, opinion{number: f.number, length: f.length, captured: len(f.data), class: classify.Frame(f.data)})
	}
	withVethPair(t, largest, func(w *vethPair) {
		counted, err := w.replay(capture)
		if err != nil {
			t.Fatal(err)
		}
		if wrong, err := w.locate(capture); err != nil || len(wrong) > 0 {
			t.Errorf("%d sound frames are said to be counted otherwise, %v", len(wrong), err)
		}
		for _, more := range []uint64{0, 1} {
			counted[traffic.ClassARP].Bytes += more
			c, err := compare(capture, opinions, counted)
			if err != nil {
				t.Fatal(err)
			}
			if c.equal() != (more == 0) {
				t.Errorf("equal is %t with %d bytes too many", c.equal(), more)
			}
		}
	})
}

func TestClassOfProtocols(t *testing.T) {
	for name, tc := range map[string]struct {
		protocols string
		says      map[string][]string
		want      traffic.Class
	}{
		"the outermost IPv4 counts": {
			"eth:ethertype:ip:gre:ip:tcp", map[string][]string{"ip.version": {"4", "4"}, "ip.proto": {"47", "6"}}, traffic.IP(traffic.IPv4, 47),
		},
		"the last extension header names the protocol": {
			"eth:ethertype:ipv6:ipv6.hopopts:ipv6.dstopts:udp:dns",
			map[string][]string{"ipv6.nxt": {"0"}, "ipv6.hopopts.nxt": {"60"}, "ipv6.dstopts.nxt": {"17"}}, traffic.IP(traffic.IPv6, 17),
		},
		"of a kind that comes twice, each has its own value": {
			"eth:ethertype:ipv6:ipv6.dstopts:ipv6.routing:ipv6.dstopts:tcp",
			map[string][]string{"ipv6.nxt": {"60"}, "ipv6.dstopts.nxt": {"43", "6"}, "ipv6.routing.nxt": {"60"}}, traffic.IP(traffic.IPv6, 6),
		},
		"extension headers of a tunnelled packet do not count": {
			"eth:ethertype:ipv6:ipv6:ipv6.dstopts:udp",
			map[string][]string{"ipv6.nxt": {"41", "60"}, "ipv6.dstopts.nxt": {"17"}}, traffic.IP(traffic.IPv6, 41),
		},
		"tags are looked through": {
			"eth:ethertype:ieee8021ad:ethertype:vlan:ethertype:arp", nil, traffic.ClassARP,
		},
		"LLC in a VLAN is another ethertype":  {"eth:ethertype:vlan:llc:stp", nil, traffic.ClassOther},
		"IPv4 behind MPLS is MPLS":            {"eth:ethertype:mpls:ip:udp", map[string][]string{"ip.version": {"4"}, "ip.proto": {"17"}}, traffic.ClassOther},
		"IPv4 behind SNAP is an 802.3 length": {"eth:llc:ip:udp", map[string][]string{"ip.version": {"4"}, "ip.proto": {"17"}}, traffic.ClassOther},
		"IPv4 without a protocol is malformed": {
			"eth:ethertype:ip", map[string][]string{"ip.version": {"4"}}, traffic.ClassMalformed,
		},
		"IPv6 under the ethertype of IPv4 is malformed": {
			"eth:ethertype:ip:ipv6:tcp", map[string][]string{"ip.version": {"6", "6"}, "ipv6.nxt": {"6"}}, traffic.ClassMalformed,
		},
	} {
		if got := classOf(tc.protocols, tc.says); got != tc.want {
			t.Errorf("%s: got %s, want %s", name, got, tc.want)
		}
	}
}

func TestSkippedFramesHaveReason(t *testing.T) {
	sound := frames.Common()[0].Data
	one := func(number int, skip string, data []byte, length int) (frame, opinion) {
		return frame{number: number, data: data, length: length, skip: skip},
			opinion{number: number, length: length, captured: len(data), class: traffic.IP(traffic.IPv4, 6)}
	}
	var all []frame
	var opinions []opinion
	for i, skip := range []string{skipSnapped, skipLong, skipSnapped, ""} {
		f, o := one(i+1, skip, sound, len(sound))
		all, opinions = append(all, f), append(opinions, o)
	}
	var counted traffic.Totals
	counted[traffic.IP(traffic.IPv4, 6)] = traffic.Counts{Packets: 1, Bytes: uint64(len(sound))}
	c, err := compare(all, opinions, counted)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string][]int{skipSnapped: {1, 3}, skipLong: {2}}, c.skipped); diff != "" {
		t.Errorf("skipped (-want +got):\n%s", diff)
	}
	if !c.equal() {
		t.Error("what was skipped counts as a difference")
	}
}

// Known differences must not match other frames: if tshark returned an arbitrary class for each frame, only frames of the
// described kind are explained.
func TestKnownDifferencesMatchOnlyTheirFrames(t *testing.T) {
	for _, f := range frames.All() {
		d := classify.Dissect(f.Data)
		if d.Defect != classify.Sound || d.Type == 0x8035 || d.Type == 0x8100 {
			continue
		}
		if d.Class.Family() == traffic.IPv4 && len(d.Network) > 3 && d.Network[2] == 0 && d.Network[3] < 20 {
			continue
		}
		for _, class := range []traffic.Class{traffic.ClassARP, traffic.ClassOther, traffic.ClassMalformed, traffic.IP(traffic.IPv4, 200), traffic.IP(traffic.IPv6, 200)} {
			o := opinion{class: class, protocols: "eth:ethertype:ip:udp"}
			if class.Family() == traffic.IPv6 && len(d.Extensions) > 0 && payloadEndsEarly(d) {
				continue
			}
			if sentence := explain(f.Data, o); sentence != "" {
				t.Errorf("%s as %s is excused: %s", f.Name, class, sentence)
			}
		}
	}
}
