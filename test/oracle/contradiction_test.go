// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// record is one packet of a file: these bytes were captured, of this original length.
type record struct {
	data   []byte
	length int
}

// pcapOf returns a pcap file with these records (draft-ietf-opsawg-pcap).
func pcapOf(order binary.AppendByteOrder, records []record) []byte {
	const snaplen, ethernet = 65535, 1
	file := order.AppendUint32(nil, 0xA1B2C3D4)
	file = order.AppendUint16(order.AppendUint16(file, 2), 4)
	file = append(file, make([]byte, 8)...)
	file = order.AppendUint32(order.AppendUint32(file, snaplen), ethernet)
	for _, r := range records {
		file = append(file, make([]byte, 8)...) // the time
		file = order.AppendUint32(order.AppendUint32(file, uint32(len(r.data))), uint32(r.length))
		file = append(file, r.data...)
	}
	return file
}

// pcapngOf returns a pcapng file with these records (draft-ietf-opsawg-pcapng).
func pcapngOf(records []record) []byte {
	const sectionHeader, interfaceDescription, enhancedPacket = 0x0A0D0D0A, 1, 6
	order := binary.LittleEndian
	var file []byte
	block := func(kind uint32, body []byte) {
		body = append(body, make([]byte, -len(body)&3)...)
		length := uint32(len(body) + 12)
		file = order.AppendUint32(order.AppendUint32(file, kind), length)
		file = order.AppendUint32(append(file, body...), length)
	}
	header := order.AppendUint32(nil, 0x1A2B3C4D)
	header = order.AppendUint16(order.AppendUint16(header, 1), 0)
	block(sectionHeader, order.AppendUint64(header, 1<<64-1))
	block(interfaceDescription, order.AppendUint32([]byte{1, 0, 0, 0}, 65535)) // of Ethernet
	for _, r := range records {
		body := make([]byte, 12) // interface and time
		body = order.AppendUint32(order.AppendUint32(body, uint32(len(r.data))), uint32(r.length))
		block(enhancedPacket, slices.Concat(body, r.data))
	}
	return file
}

func zipped(t *testing.T, file []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(file); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A record whose captured length is larger than its original one contradicts itself: nobody knows how long the frame was.
// tshark reads such files.
func TestFramesThatContradictThemselvesAreSkippedAndTheRestIsCompared(t *testing.T) {
	var arp []byte
	for _, f := range frames.Common() {
		if f.Class == traffic.ClassARP {
			arp = f.Data
		}
	}
	sound := record{arp, len(arp)}
	records := []record{sound, sound, sound, {arp, len(arp) - 1}, sound, {arp, 0}, sound}
	var columns strings.Builder
	for i, r := range records { // as TShark 4.0.17 prints it
		fmt.Fprintf(&columns, "%d\t1\t%d\t%d\teth:ethertype:arp%s\n", i+1, r.length, len(r.data), strings.Repeat("\t", len(fields)-5))
	}
	for name, file := range map[string][]byte{
		"little.pcap":    pcapOf(binary.LittleEndian, records),
		"big.pcap":       pcapOf(binary.BigEndian, records),
		"little.pcap.gz": zipped(t, pcapOf(binary.LittleEndian, records)),
		"ng.pcapng":      pcapngOf(records),
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		capture, err := readCapture(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		skipped := map[int]string{}
		for _, f := range capture {
			if f.skip != "" {
				skipped[f.number] = f.skip
			}
		}
		if diff := cmp.Diff(map[int]string{4: skipContradiction, 6: skipContradiction}, skipped); diff != "" {
			t.Errorf("%s: skipped (-want +got):\n%s", name, diff)
		}
		withVethPair(t, mtuFor(capture), func(w *vethPair) {
			var out bytes.Buffer
			if err := judge(&out, w, capture, []byte(columns.String())); err != nil {
				t.Errorf("%s: %v\n%s", name, err, &out)
			}
			for _, want := range []string{"7 frames, 5 replayed and counted\n", "2 skipped: " + skipContradiction + ": frames 4, 6\n"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%s: the report does not contain %q:\n%s", name, want, &out)
				}
			}
		})
	}
}

func TestSkippedFramesAreListedUpToALimit(t *testing.T) {
	c := &comparison{frames: 25, skipped: map[string][]int{}}
	for number := range 25 {
		c.skipped[skipShort] = append(c.skipped[skipShort], number+1)
	}
	var out bytes.Buffer
	c.write(&out)
	const want = "25 skipped: " + skipShort + ": frames 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20 and 5 more\n"
	if !strings.Contains(out.String(), want) {
		t.Errorf("the report does not contain %q:\n%s", want, &out)
	}
}
