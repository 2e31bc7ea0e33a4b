// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// maxFrame is the length of the longest generated frame. BPF_PROG_TEST_RUN accepts 3520 bytes in one buffer.
const maxFrame = 1514

// corpusFolder contains the seed corpus of FuzzProgram, in the format of go test. The generator mutates its frames too.
const corpusFolder = "testdata/fuzz/FuzzProgram"

// generator returns frames that are hard to classify. Half of them are built from headers, which sometimes have errors. The
// other half are known frames with a few bytes changed. A few are packets without an Ethernet header, as generic XDP sees them.
// A frame is valid until the next call of next.
type generator struct {
	*rand.Rand
	known  [][]byte
	buffer []byte
}

func newGenerator(seed, stream uint64, known [][]byte) *generator {
	return &generator{Rand: rand.New(rand.NewPCG(seed, stream)), known: known, buffer: make([]byte, 0, 2*maxFrame)}
}

// knownFrames returns the frames and packets of test/util/frames, and the frames of the corpus.
func knownFrames(t testing.TB) [][]byte {
	t.Helper()
	var known [][]byte
	for _, f := range frames.All() {
		known = append(known, f.Data)
	}
	for _, p := range frames.SentByNode() {
		known = append(known, p.Data)
	}
	corpus, err := readCorpus()
	if err != nil {
		t.Fatal(err)
	}
	return append(known, corpus...)
}

// readCorpus reads the corpus files of a fuzz target with one []byte argument.
func readCorpus() ([][]byte, error) {
	files, err := filepath.Glob(filepath.Join(corpusFolder, "*"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no corpus in %s", corpusFolder)
	}
	var corpus [][]byte
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		_, value, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
		value = strings.TrimSuffix(strings.TrimPrefix(value, "[]byte("), ")")
		frame, err := strconv.Unquote(value)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		if len(frame) >= minFrame {
			corpus = append(corpus, []byte(frame)[:min(len(frame), maxFrame)])
		}
	}
	return corpus, nil
}

func (g *generator) next() []byte {
	g.buffer = g.buffer[:0]
	switch n := g.IntN(32); {
	case n < 2:
		g.packet()
	case n < 16:
		g.build()
	default:
		g.mutate()
	}
	for len(g.buffer) < minFrame {
		g.u8(byte(g.Uint32()))
	}
	g.buffer = g.buffer[:min(len(g.buffer), maxFrame)]
	return g.buffer
}

// oneIn returns true once in n calls on average.
func (g *generator) oneIn(n int) bool { return g.IntN(n) == 0 }

func (g *generator) u8(v byte) { g.buffer = append(g.buffer, v) }

func (g *generator) u16(v uint16) { g.buffer = binary.BigEndian.AppendUint16(g.buffer, v) }

// random appends n bytes.
func (g *generator) random(n int) {
	for ; n >= 8; n -= 8 {
		g.buffer = binary.NativeEndian.AppendUint64(g.buffer, g.Uint64())
	}
	for range n {
		g.u8(byte(g.Uint32()))
	}
}

func pick[T any](g *generator, from []T) T { return from[g.IntN(len(from))] }

// Values that are drawn more often than others, and similar ones.
var (
	tpids      = []uint16{0x8100, 0x88A8, 0x9100}
	types      = []uint16{0x0806, 0x8847, 0x8848, 0x8863, 0x8864, 0x88CC, 0x0800, 0x86DD, 0x0008, 0xDD86, 0x0608, 0x8035, 0, 64, 1500, 0xFFFF}
	extensions = []byte{0, 43, 44, 44, 51, 60}
	uppers     = []byte{1, 2, 4, 6, 6, 17, 17, 41, 42, 43, 45, 47, 50, 52, 57, 58, 58, 59, 61, 89, 132, 135, 139, 140, 253, 254, 255}
	bytesLike  = []byte{0, 1, 4, 5, 6, 8, 17, 43, 44, 45, 51, 58, 59, 60, 0x40, 0x44, 0x45, 0x46, 0x4F, 0x60, 0x6F, 0x7F, 0x80, 0x81, 0x86, 0x88, 0xDD, 0xFF}
)

// build returns a frame built from headers. Some frames are truncated.
func (g *generator) build() {
	g.random(12)
	for range g.count(6) {
		g.tag()
	}
	switch g.IntN(12) {
	case 0, 1, 2, 3:
		g.ethertype(0x0800)
		g.ipv4()
	case 4, 5, 6, 7, 8, 9:
		g.ethertype(0x86DD)
		g.ipv6()
	case 10:
		g.ethertype(0x0806)
		g.random(g.IntN(40))
	default:
		if g.oneIn(4) {
			g.u16(uint16(g.Uint32()))
		} else {
			g.u16(pick(g, types))
		}
		g.random(g.IntN(80))
	}
	switch g.IntN(16) {
	case 0: // truncated near the last header
		g.cut(max(0, len(g.buffer)-1-g.IntN(24)))
	case 1, 2, 3:
		g.cut(g.IntN(len(g.buffer) + 1))
	case 4:
		g.random(g.IntN(maxFrame))
	default:
		g.random(g.IntN(40))
	}
}

func (g *generator) tag() {
	g.ethertype(pick(g, tpids))
	g.random(2)
}

// ethertype appends an EtherType, or sometimes a similar one. What follows is the same in both cases, but must not be parsed
// in the second.
func (g *generator) ethertype(t uint16) {
	if g.oneIn(16) {
		switch g.IntN(4) {
		case 0:
			t = t>>8 | t<<8
		case 1:
			t += pick(g, []uint16{1, 0xFFFF, 0x100, 0xFF00})
		default:
			t ^= 1 << g.IntN(16)
		}
	}
	g.u16(t)
}

func (g *generator) cut(n int) { g.buffer = g.buffer[:n] }

// count returns a small number, which is often 0 and rarely above most.
func (g *generator) count(most int) int {
	if g.oneIn(2) {
		return 0
	}
	return 1 + g.IntN(most)
}

func (g *generator) ipv4() {
	start := len(g.buffer)
	ihl := 5
	if g.oneIn(2) {
		ihl = g.IntN(16)
	}
	g.random(max(20, ihl*4))
	header := g.buffer[start:]
	header[0] = 4<<4 | byte(ihl)
	if g.oneIn(16) {
		header[0] = byte(g.Uint32())
	}
	header[9] = g.protocol()
}

func (g *generator) protocol() byte {
	if g.oneIn(2) {
		return byte(g.Uint32())
	}
	return pick(g, uppers)
}

func (g *generator) ipv6() {
	start := len(g.buffer)
	g.random(40)
	g.buffer[start] = 6<<4 | g.buffer[start]&0xF
	if g.oneIn(16) {
		g.buffer[start] = byte(g.Uint32())
	}
	chain := make([]byte, 0, 16)
	for range g.count(11) {
		chain = append(chain, pick(g, extensions))
	}
	chain = append(chain, g.protocol())
	g.buffer[start+6] = chain[0]
	for i, kind := range chain[:len(chain)-1] {
		g.extension(kind, chain[i+1])
	}
}

func (g *generator) extension(kind, next byte) {
	length := byte(g.IntN(4))
	if g.oneIn(8) {
		length = byte(g.Uint32())
	}
	g.u8(next)
	g.u8(length)
	start := len(g.buffer)
	switch kind {
	case 51:
		g.random(6 + 4*int(length))
	case 44:
		g.random(6)
		if !g.oneIn(3) { // the first fragment, or a packet that is not fragmented
			g.buffer[start], g.buffer[start+1] = 0, g.buffer[start+1]&7
		}
	default:
		g.random(6 + 8*int(length))
	}
	if g.oneIn(32) { // the length is too large or too small
		g.cut(max(0, len(g.buffer)-g.IntN(9)))
	}
}

// mutate applies up to 4 changes to a known frame.
func (g *generator) mutate() {
	g.buffer = append(g.buffer, pick(g, g.known)...)
	for range 1 + g.IntN(4) {
		if len(g.buffer) == 0 {
			return
		}
		at := g.position()
		switch g.IntN(9) {
		case 0:
			g.buffer[at] ^= 1 << g.IntN(8)
		case 1:
			g.buffer[at] = byte(g.Uint32())
		case 2:
			g.buffer[at] = pick(g, bytesLike)
		case 3: // replace an EtherType
			if at+1 < len(g.buffer) {
				binary.BigEndian.PutUint16(g.buffer[at:], pick(g, types))
			}
		case 4: // insert a tag
			tag := binary.BigEndian.AppendUint32(nil, uint32(pick(g, tpids))<<16|g.Uint32()>>16)
			g.buffer = slices.Insert(g.buffer, min(12, len(g.buffer)), tag...)
		case 5: // duplicate a part
			end := min(len(g.buffer), at+1+g.IntN(24))
			g.buffer = slices.Insert(g.buffer, at, slices.Clone(g.buffer[at:end])...)
		case 6: // remove a part
			g.buffer = slices.Delete(g.buffer, at, min(len(g.buffer), at+1+g.IntN(24)))
		case 7: // append the end of another frame
			other := pick(g, g.known)
			g.buffer = append(g.buffer[:at], other[min(at, len(other)):]...)
		case 8:
			if g.oneIn(2) {
				g.cut(at)
			} else {
				g.random(g.IntN(64))
			}
		}
		g.buffer = g.buffer[:min(len(g.buffer), maxFrame)]
	}
}

// packet returns an IP packet without an Ethernet header, mostly to a group. In one of eight something is wrong with it: the
// length, the checksum or a single bit. In others the source address looks like an EtherType and what follows it.
func (g *generator) packet() {
	inner := []byte{}
	if g.oneIn(4) { // where an Ethernet frame has its type
		inner = binary.BigEndian.AppendUint16(inner, pick(g, append(types, tpids...)))
		inner = append(inner, pick(g, bytesLike), pick(g, bytesLike), byte(g.IntN(4)), byte(g.Uint32()), byte(g.IntN(2)), byte(g.Uint32()))
	}
	if g.oneIn(2) {
		g.packet4(inner)
	} else {
		g.packet6(inner)
	}
	if g.oneIn(8) {
		g.buffer[g.IntN(len(g.buffer))] ^= 1 << g.IntN(8)
	}
	if g.oneIn(16) {
		g.random(1 + g.IntN(8))
	}
}

func (g *generator) packet4(from12 []byte) {
	ihl := 5
	if g.oneIn(2) {
		ihl = g.IntN(16)
	}
	g.random(max(20, ihl*4) + g.IntN(80))
	p := g.buffer
	p[0] = 4<<4 | byte(ihl)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	p[9] = g.protocol()
	if !g.oneIn(4) {
		p[16] = 0xE0 | p[16]&0xF
	}
	copy(p[12:20], from12)
	if ihl > 5 && !g.oneIn(4) {
		p[20], p[21] = 0x94, 4
	}
	if g.oneIn(16) {
		return // the checksum is most probably wrong
	}
	p[10], p[11] = 0, 0
	sum := 0
	for at := 0; at < max(20, ihl*4); at += 2 {
		sum += int(binary.BigEndian.Uint16(p[at:]))
	}
	for sum > 0xFFFF {
		sum = sum&0xFFFF + sum>>16
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
}

func (g *generator) packet6(from12 []byte) {
	g.random(40 + g.IntN(80))
	p := g.buffer
	p[0] = 6<<4 | p[0]&0xF
	binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
	p[6] = g.protocol()
	if g.oneIn(2) {
		copy(p[8:16], []byte{0xFE, 0x80, 0, 0, 0, 0, 0, 0})
	}
	copy(p[12:20], from12)
	if !g.oneIn(8) {
		p[24] = 0xFF
	}
}

// position returns an offset in the frame, mostly in its headers.
func (g *generator) position() int {
	if n := len(g.buffer); g.oneIn(8) {
		return g.IntN(n)
	}
	return g.IntN(min(len(g.buffer), 96))
}
