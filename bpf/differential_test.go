// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/util/classify"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// The environment variables of TestCountGeneratedFrames.
const (
	framesVariable = "XDP_OPERATOR_FUZZ_FRAMES" // number of frames; default 3,000,000, or a sixtieth of that with -short
	seedVariable   = "XDP_OPERATOR_FUZZ_SEED"   // random by default; printed
)

// comparison compares a program with package classify, frame by frame.
type comparison struct {
	*counter
	cpus    int
	generic bool           // the program does not count what the node sends
	passed  uint64         // packets that were not counted for that reason
	want    traffic.Totals // expected counts, summed over all CPUs
	run     ebpf.RunOptions
	slot    [16]byte
}

func newJudge(t testing.TB, v variant) *comparison {
	t.Helper()
	c := load(t, v)
	return &comparison{counter: c, cpus: len(c.table) / BytesPerCPU, generic: v.seesOwnPackets()}
}

// check runs the program on the frame. It returns an error if the program does not pass the frame unchanged, or does not
// count it in the class that package classify returns. It reads the slot of this class only. checkAll compares all slots.
func (j *comparison) check(frame []byte) error {
	class := classify.Frame(frame)
	j.run = ebpf.RunOptions{Data: frame, DataOut: j.out}
	verdict, err := j.program.Run(&j.run)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, hex.Dump(frame))
	}
	if verdict != pass {
		return fmt.Errorf("the verdict is %d\n%s", verdict, hex.Dump(frame))
	}
	if !bytes.Equal(j.run.DataOut, frame) {
		return fmt.Errorf("the frame was changed from\n%sto\n%s", hex.Dump(frame), hex.Dump(j.run.DataOut))
	}
	if j.generic && classify.SentByNode(frame) {
		j.passed++
	} else {
		j.want[class].Packets++
		j.want[class].Bytes += uint64(len(frame))
	}
	got, err := j.counted(int(class))
	if err != nil {
		return err
	}
	if got != j.want[class] {
		return fmt.Errorf("%s by the standards has %v instead of %v after this frame, which went to %s\n%s",
			class, got, j.want[class], j.tried(frame), hex.Dump(frame))
	}
	return nil
}

// counted returns the counts of a slot, summed over all CPUs.
func (j *comparison) counted(slot int) (traffic.Counts, error) {
	var sum traffic.Counts
	for cpu := range j.cpus {
		if _, err := j.memory.ReadAt(j.slot[:], int64(cpu*BytesPerCPU+slot*16)); err != nil {
			return sum, err
		}
		sum.Packets += binary.NativeEndian.Uint64(j.slot[:])
		sum.Bytes += binary.NativeEndian.Uint64(j.slot[8:])
	}
	return sum, nil
}

// checkAll compares all slots, including those without a class.
func (j *comparison) checkAll() error {
	for slot := range Slots {
		got, err := j.counted(slot)
		if err != nil {
			return err
		}
		var want traffic.Counts
		if slot < len(j.want) {
			want = j.want[slot]
		}
		if got != want {
			return fmt.Errorf("slot %d (%s) has %v instead of %v: a frame was counted in more than one",
				slot, traffic.Class(slot), got, want)
		}
	}
	return nil
}

// tried runs the program on the frame once more and returns which slots have grown.
func (j *comparison) tried(frame []byte) string {
	var before [Slots]traffic.Counts
	for slot := range before {
		before[slot], _ = j.counted(slot)
	}
	if _, err := j.program.Run(&ebpf.RunOptions{Data: frame}); err != nil {
		return err.Error()
	}
	grown := ""
	for slot := range before {
		if after, _ := j.counted(slot); after != before[slot] {
			grown += fmt.Sprintf(" %s%+v", traffic.Class(slot), after.Since(before[slot]))
		}
	}
	if grown == "" {
		return "nowhere"
	}
	return grown[1:]
}

// number returns the value of an environment variable.
func number(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// stayOn binds the goroutine to the nth of the CPUs that this process can use, so that the counts of CPUs other than 0 are
// tested too.
func stayOn(n int) error {
	var may, only unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return err
	}
	for cpu := range 8 * int(unsafe.Sizeof(may)) {
		if !may.IsSet(cpu) {
			continue
		}
		if n--; n < 0 {
			only.Set(cpu)
			runtime.LockOSThread() // never unlocked, so the thread exits with the goroutine
			return unix.SchedSetaffinity(0, &only)
		}
	}
	return fmt.Errorf("there are fewer CPUs than workers")
}

// TestCountGeneratedFrames compares the program with package classify, which was written from the standards, on millions of
// generated frames. Each CPU has its own program. The variants alternate.
//
// The number of frames was determined by mutating single instructions of the program (a constant by one, a jump inverted or
// off by one, the offset of a load). Every mutation that makes a difference for any frame of 14 bytes or more was found, the
// last ones after 700,000 frames.
func TestCountGeneratedFrames(t *testing.T) {
	total := uint64(3_000_000)
	if testing.Short() {
		total /= 60
	}
	total = number(t, framesVariable, total)
	seed := number(t, seedVariable, rand.Uint64())
	known := knownFrames(t)
	variants := variants(t)
	workers := max(len(variants), min(runtime.NumCPU(), 8))
	repeat := fmt.Sprintf("%s=%d %s=%d (with %d workers)", seedVariable, seed, framesVariable, total, workers)
	t.Log(repeat)

	judges := make([]*comparison, workers)
	errs := make([]error, workers)
	began := time.Now()
	var all sync.WaitGroup
	for w := range judges {
		j := newJudge(t, variants[w%len(variants)])
		judges[w] = j
		share := total / uint64(workers)
		if uint64(w) < total%uint64(workers) {
			share++
		}
		all.Go(func() {
			if err := stayOn(w % runtime.NumCPU()); err != nil {
				errs[w] = err
				return
			}
			g := newGenerator(seed, uint64(w), known)
			for n := range share {
				if err := j.check(g.next()); err != nil {
					errs[w] = fmt.Errorf("frame %d of worker %d: %w", n, w, err)
					return
				}
				// Only now and then, because it reads the whole table.
				if n%8192 == 0 {
					if err := j.checkAll(); err != nil {
						errs[w] = fmt.Errorf("up to frame %d of worker %d: %w", n, w, err)
						return
					}
				}
			}
			errs[w] = j.checkAll()
		})
	}
	all.Wait()
	took := time.Since(began)
	for _, err := range errs {
		if err != nil {
			t.Errorf("%v\nTo repeat: %s", err, repeat)
		}
	}
	if t.Failed() {
		return
	}

	var sum traffic.Totals
	var passed uint64
	for _, j := range judges {
		sum = sum.Plus(j.want)
		passed += j.passed
	}
	t.Logf("%d frames in %.1f s by %d workers: %.0f per second; %d were packets that the node sends", total, took.Seconds(), workers,
		float64(total)/took.Seconds(), passed)
	if sum.Sum().Packets+passed != total {
		t.Errorf("%d frames, and %d packets that the node sends, instead of %d", sum.Sum().Packets, passed, total)
	}
	for family, counts := range sum.ByFamily() {
		t.Logf("%10s %5.1f %%", traffic.Family(family), 100*float64(counts.Packets)/float64(total))
	}
	// A small number of frames does not reach every class.
	if total < 1_000_000 {
		return
	}
	if passed == 0 {
		t.Error("the generator returned no packet that the node sends")
	}
	for class, counts := range sum {
		if counts.Packets == 0 {
			t.Errorf("the generator returned no frame of %s", traffic.Class(class))
		}
	}
}

// The program distinguishes the kinds of extension headers by arithmetic. So every next header is tested, alone and after
// another header, and with every length of its own header.
func TestCountEveryNextHeader(t *testing.T) {
	for _, v := range variants(t) {
		t.Run(v.String(), func(t *testing.T) {
			j := newJudge(t, v)
			for next := range 256 {
				for _, first := range []byte{byte(next), 0, 43, 44, 51, 60} {
					for length := range 4 {
						frame := make([]byte, 14+40+8+64)
						frame[12], frame[13], frame[14] = 0x86, 0xDD, 6<<4
						frame[20] = first
						extension := frame[14+40:]
						extension[0] = byte(next)
						extension[8+1] = byte(length)
						for at := 8; at < len(extension); at += 4 {
							extension[at] = byte(6 + at) // shows how far the parser went
						}
						if err := j.check(frame); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			if err := j.checkAll(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// The comparison itself must find errors.
func TestComparisonFindsErrors(t *testing.T) {
	g := newGenerator(1, 1, knownFrames(t))
	for name, spoil := range map[string]func(*comparison, traffic.Class){
		"a missing frame":    func(j *comparison, class traffic.Class) { j.want[class].Packets++ },
		"an additional byte": func(j *comparison, class traffic.Class) { j.want[class].Bytes-- },
	} {
		j := newJudge(t, ordinary)
		frame := bytes.Clone(g.next())
		if err := j.check(frame); err != nil {
			t.Fatal(err)
		}
		spoil(j, classify.Frame(frame))
		if j.check(frame) == nil {
			t.Errorf("check does not find %s", name)
		}
		if j.checkAll() == nil {
			t.Errorf("checkAll does not find %s", name)
		}
	}
	j := newJudge(t, ordinary)
	if _, err := j.program.Run(&ebpf.RunOptions{Data: g.next()}); err != nil {
		t.Fatal(err)
	}
	if j.checkAll() == nil {
		t.Error("a frame in a class that nobody asked about was not seen")
	}
}

// FuzzProgram is guided by the coverage of package classify: go test ./bpf -run '^$' -fuzz FuzzProgram
func FuzzProgram(f *testing.F) {
	for _, known := range frames.All() { // in addition to the corpus, which go test adds
		f.Add(known.Data)
	}
	for _, p := range frames.SentByNode() {
		f.Add(p.Data)
	}
	judges := []*comparison{newJudge(f, ordinary), newJudge(f, generic)}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < minFrame || len(frame) > maxFrame {
			return // BPF_PROG_TEST_RUN does not accept it, or it has more payload only
		}
		for _, j := range judges {
			if err := j.check(frame); err != nil {
				t.Fatal(err)
			}
			if err := j.checkAll(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
