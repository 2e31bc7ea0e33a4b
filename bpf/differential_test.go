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

// The environment variables that direct TestProgramAgreesWithTheStandards.
const (
	framesVariable = "XDP_OPERATOR_FUZZ_FRAMES" // how many; 3,000,000 if not set, a sixtieth with -short
	seedVariable   = "XDP_OPERATOR_FUZZ_SEED"   // random if not set, and told
)

// judge compares a program with package classify, frame by frame.
type judge struct {
	*counter
	cpus int
	want traffic.Totals // what all CPUs together must have counted
	run  ebpf.RunOptions
	slot [16]byte
}

func newJudge(t testing.TB, v variant) *judge {
	t.Helper()
	c := load(t, v)
	return &judge{counter: c, cpus: len(c.table) / BytesPerCPU}
}

// check runs the program on the frame. The error says in which way it differs from package classify in verdict, frame
// or class. Only the slot that must have grown is looked at: whether no other has is for settle to say.
func (j *judge) check(frame []byte) error {
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
	j.want[class].Packets++
	j.want[class].Bytes += uint64(len(frame))
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

// counted returns what all CPUs have in a slot.
func (j *judge) counted(slot int) (traffic.Counts, error) {
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

// settle compares every slot, those without a class too.
func (j *judge) settle() error {
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

// tried runs the program on the frame once more and says what has grown.
func (j *judge) tried(frame []byte) string {
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

// number returns what an environment variable says.
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

// stayOn makes the goroutine run on the nth of the CPUs that this process may use, to its end: the part of the table
// that belongs to another CPU than 0 has to be tried, too.
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
			runtime.LockOSThread() // and never unlocks: the thread ends with the goroutine
			return unix.SchedSetaffinity(0, &only)
		}
	}
	return fmt.Errorf("there are fewer CPUs than workers")
}

// Millions of frames that nobody has thought of have the class that package classify finds, which was written from the
// standards. Each CPU has a program of its own, of the variants in turn.
//
// How many it takes was found out by changing single instructions of the program (a constant by one, a jump to its
// opposite or off by one, the offset of a load): every change that makes a difference to any frame of 14 bytes and
// more was seen, the last ones after 700,000 frames.
func TestProgramAgreesWithTheStandards(t *testing.T) {
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

	judges := make([]*judge, workers)
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
				// Rarely, since it reads all of the table.
				if n%8192 == 0 {
					if err := j.settle(); err != nil {
						errs[w] = fmt.Errorf("up to frame %d of worker %d: %w", n, w, err)
						return
					}
				}
			}
			errs[w] = j.settle()
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
	for _, j := range judges {
		sum = sum.Plus(j.want)
	}
	t.Logf("%d frames in %.1f s by %d workers: %.0f per second", sum.Sum().Packets, took.Seconds(), workers,
		float64(sum.Sum().Packets)/took.Seconds())
	if sum.Sum().Packets != total {
		t.Errorf("%d frames instead of %d", sum.Sum().Packets, total)
	}
	for family, counts := range sum.ByFamily() {
		t.Logf("%10s %5.1f %%", traffic.Family(family), 100*float64(counts.Packets)/float64(total))
	}
	// So few frames need not reach every class.
	if total < 1_000_000 {
		return
	}
	for class, counts := range sum {
		if counts.Packets == 0 {
			t.Errorf("the generator made no frame of %s", traffic.Class(class))
		}
	}
}

// The kinds of extension headers are told by arithmetic, so every next header is tried, alone and behind another, and
// with every length of what may be its header.
func TestProgramTellsEveryNextHeader(t *testing.T) {
	for _, v := range variants(t) {
		t.Run(v.name, func(t *testing.T) {
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
							extension[at] = byte(6 + at) // tells how far it went
						}
						if err := j.check(frame); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			if err := j.settle(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// The judge itself must see what it is there for.
func TestTheJudgeSeesAFrameInAnotherClass(t *testing.T) {
	g := newGenerator(1, 1, knownFrames(t))
	for name, spoil := range map[string]func(*judge, traffic.Class){
		"a frame that was not counted": func(j *judge, class traffic.Class) { j.want[class].Packets++ },
		"a byte too many":              func(j *judge, class traffic.Class) { j.want[class].Bytes-- },
	} {
		j := newJudge(t, ordinary)
		frame := bytes.Clone(g.next())
		if err := j.check(frame); err != nil {
			t.Fatal(err)
		}
		spoil(j, classify.Frame(frame))
		if j.check(frame) == nil {
			t.Errorf("%s was not seen frame by frame", name)
		}
		if j.settle() == nil {
			t.Errorf("%s was not seen in the end", name)
		}
	}
	j := newJudge(t, ordinary)
	if _, err := j.program.Run(&ebpf.RunOptions{Data: g.next()}); err != nil {
		t.Fatal(err)
	}
	if j.settle() == nil {
		t.Error("a frame in a class that nobody asked about was not seen")
	}
}

// FuzzProgram lets the coverage of package classify lead the way: go test ./bpf -run '^$' -fuzz FuzzProgram
func FuzzProgram(f *testing.F) {
	for _, known := range frames.All() { // beside the corpus, which go test adds
		f.Add(known.Data)
	}
	j := newJudge(f, ordinary)
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < minFrame || len(frame) > maxFrame {
			return // BPF_PROG_TEST_RUN does not take it, or it is more of the same
		}
		if err := j.check(frame); err != nil {
			t.Fatal(err)
		}
		if err := j.settle(); err != nil {
			t.Fatal(err)
		}
	})
}
