// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// frame is one frame of a capture.
type frame struct {
	number int    // in the capture, from 1
	data   []byte // captured part
	length int    // original length
	skip   string // why it is not replayed; empty if it is
}

// Reasons why frames are not replayed.
const (
	skipLink    = "not of Ethernet"
	skipSnapped = "captured in part only: the rest of their bytes is not known"
	skipShort   = "shorter than an Ethernet header"
	skipLong    = "longer than 65549 bytes, the most that a veth takes"

	skipContradiction = "captured length larger than the original length"
)

// The lengths of frames that can be replayed.
const (
	shortest = 14
	longest  = largest + 14
	largest  = 65535 // MTU of a veth (include/uapi/linux/if_ether.h, ETH_MAX_MTU)
)

// mtuFor returns an MTU that is sufficient for all frames. It is the usual one if possible, so that the usual variant of the
// program is used.
func mtuFor(capture []frame) int {
	const ordinary = 1500
	for _, f := range capture {
		if f.skip == "" && len(f.data) > ordinary+14 {
			return largest
		}
	}
	return ordinary
}

// readCapture returns all frames of a pcap or pcapng file, which can be compressed with gzip.
func readCapture(name string) ([]frame, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	next, err := packets(bufio.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("no pcap or pcapng file: %w", err)
	}
	var frames []frame
	for {
		data, info, link, err := next()
		if errors.Is(err, io.EOF) {
			return frames, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read frame %d: %w", len(frames)+1, err)
		}
		f := frame{number: len(frames) + 1, data: data, length: info.Length}
		switch {
		case link != layers.LinkTypeEthernet:
			f.skip = skipLink
		case info.CaptureLength < info.Length:
			f.skip = skipSnapped
		case info.CaptureLength > info.Length:
			f.skip = skipContradiction
		case len(data) < shortest:
			f.skip = skipShort
		case len(data) > longest:
			f.skip = skipLong
		}
		frames = append(frames, f)
	}
}

// packets returns a function that reads the next packet, and returns io.EOF after the last.
func packets(r *bufio.Reader) (func() ([]byte, gopacket.CaptureInfo, layers.LinkType, error), error) {
	magic, err := r.Peek(4)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(magic, []byte{0x1F, 0x8B}) { // RFC 1952
		unzipped, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		return packets(bufio.NewReader(unzipped))
	}
	if binary.LittleEndian.Uint32(magic) == 0x0A0D0D0A { // a section header block, the same in both byte orders
		// Frames of other link types must not be left out, because the frame numbers would differ from tshark's.
		ng, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
		if err != nil {
			return nil, err
		}
		return func() ([]byte, gopacket.CaptureInfo, layers.LinkType, error) {
			data, info, err := ng.ReadPacketData()
			if err != nil {
				return nil, info, 0, err
			}
			link, _ := info.AncillaryData[0].(layers.LinkType)
			return data, info, link, nil
		}, nil
	}
	pcap, err := pcapgo.NewReader(r)
	if err != nil {
		return nil, err
	}
	// Some files have longer packets than their header says. tshark reads them up to this length.
	longest := max(pcap.Snaplen(), 262144)
	pcap.SetSnaplen(longest)
	return func() ([]byte, gopacket.CaptureInfo, layers.LinkType, error) {
		data, info, err := pcap.ReadPacketData()
		if err != nil && info.CaptureLength > info.Length && info.CaptureLength <= int(longest) {
			// pcapgo refuses the record after its header. It reads from r itself, since that is buffered.
			data = make([]byte, info.CaptureLength)
			_, err = io.ReadFull(r, data)
		}
		return data, info, pcap.LinkType(), err
	}, nil
}
