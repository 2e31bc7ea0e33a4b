package traffic

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tcp is n packets of 100 bytes.
func tcp(n uint64) (t Totals) {
	t[IP(IPv4, 6)] = Counts{Packets: n, Bytes: 100 * n}
	return t
}

func packets(l Ledger) map[string]uint64 {
	got := map[string]uint64{}
	for uid, account := range l.Accounts {
		got[uid] = account.Sum().Packets
	}
	return got
}

func TestReadingsAreBookedToWhomTheyWereCountedFor(t *testing.T) {
	m1, m2 := MapID{"boot1", 1}, MapID{"boot1", 2}
	type pass struct {
		readings []Reading
		selected map[int][]string
		listed   []string // those selected, if nil
	}
	at := func(m MapID, index int, n uint64) Reading { return Reading{Map: m, Index: index, Totals: tcp(n)} }
	eth0For := func(uids ...string) map[int][]string { return map[int][]string{2: uids} }

	for name, tc := range map[string]struct {
		unopened bool
		passes   []pass
		want     map[string]uint64
	}{
		"a new map counts from its first packet": {
			passes: []pass{{readings: []Reading{at(m1, 2, 5)}, selected: eth0For("a")}},
			want:   map[string]uint64{"a": 5},
		},
		"each packet is booked once": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 5)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 2, 5)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 2, 9)}, selected: eth0For("a")},
			},
			want: map[string]uint64{"a": 9},
		},
		"a counter on an interface that another has counted for a month starts at zero": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 1000)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 2, 1001)}, selected: eth0For("a", "b")},
				{readings: []Reading{at(m1, 2, 1003)}, selected: eth0For("a", "b")},
			},
			want: map[string]uint64{"a": 1003, "b": 2},
		},
		"a counter that is deselected keeps its account, and the gap is not its own when it is back": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 10)}, selected: eth0For("a", "b")},
				{readings: []Reading{at(m1, 2, 20)}, selected: eth0For("b"), listed: []string{"a", "b"}},
				{readings: []Reading{at(m1, 2, 30)}, selected: eth0For("a", "b")},
				{readings: []Reading{at(m1, 2, 35)}, selected: eth0For("a", "b")},
			},
			want: map[string]uint64{"a": 25, "b": 35},
		},
		"a map that was out of sight is not booked again when it is back": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 10), at(m2, 3, 1)}, selected: eth0For("a")},
				{readings: []Reading{at(m2, 3, 1)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 2, 15), at(m2, 3, 1)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 2, 17), at(m2, 3, 1)}, selected: eth0For("a")},
			},
			want: map[string]uint64{"a": 12},
		},
		"a map of the same ID after a reboot is another one": {
			passes: []pass{
				{readings: []Reading{at(m2, 2, 10)}, selected: eth0For("a")},
				{readings: nil, selected: eth0For("a")},
				{readings: []Reading{at(MapID{"boot2", 1}, 2, 5)}, selected: eth0For("a")},
			},
			want: map[string]uint64{"a": 15},
		},
		"a counter that is deleted takes its account with it": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 10)}, selected: eth0For("a", "b")},
				{readings: []Reading{at(m1, 2, 12)}, selected: eth0For("b")},
			},
			want: map[string]uint64{"b": 12},
		},
		"a reboot starts a new map with the old ID, and the account goes on": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 10)}, selected: eth0For("a")},
				{readings: []Reading{at(MapID{"boot2", 1}, 2, 50)}, selected: eth0For("a")},
			},
			want: map[string]uint64{"a": 60},
		},
		"an index that is reused is another map": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 10)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 0, 11), at(m2, 2, 3)}, selected: eth0For("b"), listed: []string{"a", "b"}},
			},
			want: map[string]uint64{"a": 11, "b": 3},
		},
		"an interface that vanished is read to its last packet": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 10)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 0, 17)}, listed: []string{"a"}},
				{listed: []string{"a"}},
			},
			want: map[string]uint64{"a": 17},
		},
		"a map that falls adds nothing, and what it then gains below its mark neither": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 10)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 2, 4)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 2, 12)}, selected: eth0For("a")},
			},
			want: map[string]uint64{"a": 12},
		},
		"the past of maps found by a ledger that was never saved is nobody's": {
			unopened: true,
			passes: []pass{
				{readings: []Reading{at(m1, 2, 1000)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 2, 1007)}, selected: eth0For("a")},
			},
			want: map[string]uint64{"a": 7},
		},
		"a selected interface opens an account, without a packet": {
			passes: []pass{{readings: []Reading{at(m1, 2, 0)}, selected: eth0For("a")}},
			want:   map[string]uint64{"a": 0},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := Ledger{Opened: !tc.unopened}
			for _, p := range tc.passes {
				listed := p.listed
				if listed == nil {
					for _, uids := range p.selected {
						listed = append(listed, uids...)
					}
				}
				l = l.Next(p.readings, p.selected, listed)
			}
			if diff := cmp.Diff(tc.want, packets(l)); diff != "" {
				t.Errorf("accounts (-want +got):\n%s", diff)
			}
		})
	}
}

// A model that sees every packet knows what each account must say. Random histories of traffic, selections,
// interfaces that come and go, reboots, crashes before the save and saves must agree with it.
func TestRandomHistoriesAgreeWithAModelThatSeesEveryPacket(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	type attached struct {
		id     MapID
		index  int
		count  uint64
		counts []string // for whom, since the last save
		unsent uint64   // since the last save
	}
	for history := range 300 {
		saved := Ledger{Opened: true}
		want := map[string]uint64{}
		var held []*attached
		nextID, boot := uint32(0), 0
		everyone := []string{"a", "b", "c"}
		selected := map[int][]string{}
		choose := func() []string {
			var some []string
			for _, uid := range everyone {
				if random.IntN(2) == 0 {
					some = append(some, uid)
				}
			}
			return some
		}
		for range 40 {
			switch random.IntN(6) {
			case 0: // an interface is attached
				nextID++
				held = append(held, &attached{id: MapID{fmt.Sprint("boot", boot), nextID}, index: 1 + random.IntN(4)})
			case 1: // an interface goes for good; its pinned map can be read until it is given up
				if len(held) > 0 {
					held[random.IntN(len(held))].index = 0
				}
			case 2: // a reboot: what was not saved is lost
				held, boot, nextID = nil, boot+1, 0
			case 3: // the selection changes
				selected = map[int][]string{1: choose(), 2: choose(), 3: choose(), 4: choose()}
			}
			for _, m := range held {
				n := uint64(random.IntN(5))
				m.count += n
				m.unsent += n
			}
			var readings []Reading
			for _, m := range held {
				readings = append(readings, Reading{Map: m.id, Index: m.index, Totals: tcp(m.count)})
			}
			next := saved.Next(readings, selected, everyone)
			if random.IntN(3) == 0 {
				continue // a crash, or the API server is away: nothing is saved
			}
			for uid, account := range saved.Accounts {
				if next.Accounts[uid].Max(account) != next.Accounts[uid] {
					t.Fatalf("history %d: account %s fell", history, uid)
				}
			}
			for _, m := range held {
				_, known := saved.Maps[m.id]
				counts := m.counts
				if !known {
					counts = selected[m.index]
				}
				for _, uid := range counts {
					want[uid] += m.unsent
				}
				m.unsent, m.counts = 0, selected[m.index]
			}
			saved = next
			got := packets(saved)
			maps.DeleteFunc(got, func(_ string, n uint64) bool { return n == 0 })
			maps.DeleteFunc(want, func(_ string, n uint64) bool { return n == 0 })
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("history %d of seed %d: accounts (-want +got):\n%s", history, seed, diff)
			}
			held = slices.DeleteFunc(held, func(m *attached) bool { return m.index == 0 }) // given up, once saved
		}
	}
}

// Whatever a ledger holds and is told: the same readings booked again add nothing, their order does not matter, no
// account falls that is kept, and none is kept that is not listed.
func TestAnyLedgerBooksTheSameReadingsOnce(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	everyone := []string{"a", "b", "c", "d"}
	some := func() (uids []string) {
		for _, uid := range everyone {
			if random.IntN(2) == 0 {
				uids = append(uids, uid)
			}
		}
		return uids
	}
	for range 300 {
		before := Ledger{Opened: random.IntN(4) > 0, Maps: map[MapID]Booked{}, Accounts: map[string]Totals{}}
		for _, uid := range some() {
			before.Accounts[uid] = tcp(random.Uint64N(100))
		}
		var readings []Reading
		for id := range uint32(4) {
			m := MapID{"boot", id}
			if random.IntN(2) == 0 {
				before.Maps[m] = Booked{Totals: tcp(random.Uint64N(100)), Counters: some()}
			}
			if random.IntN(4) > 0 {
				readings = append(readings, Reading{Map: m, Index: random.IntN(3), Totals: tcp(random.Uint64N(200))})
			}
		}
		selected, listed := map[int][]string{1: some(), 2: some()}, some()

		next := before.Next(readings, selected, listed)
		if again := next.Next(readings, selected, listed); !reflect.DeepEqual(next, again) {
			t.Fatalf("booked again:\n%s", cmp.Diff(next, again))
		}
		random.Shuffle(len(readings), func(i, j int) { readings[i], readings[j] = readings[j], readings[i] })
		if other := before.Next(readings, selected, listed); !reflect.DeepEqual(next, other) {
			t.Fatalf("in another order:\n%s", cmp.Diff(next, other))
		}
		for uid, account := range before.Accounts {
			if slices.Contains(listed, uid) && next.Accounts[uid].Max(account) != next.Accounts[uid] {
				t.Fatalf("account %s fell", uid)
			}
		}
		for uid := range next.Accounts {
			if !slices.Contains(listed, uid) {
				t.Fatalf("account %s is kept and not listed", uid)
			}
		}
	}
}

// What somebody has taken from a saved ledger comes back from the one that is remembered, and what was saved since then
// by others stays.
func TestOrKnowsWhatEitherLedgerKnows(t *testing.T) {
	m1, m2, m3 := MapID{"boot", 1}, MapID{"boot", 2}, MapID{"boot", 3}
	older := Ledger{Opened: true, Newest: m2,
		Maps:     map[MapID]Booked{m1: {tcp(5), []string{"a"}}, m2: {tcp(9), []string{"a"}}},
		Accounts: map[string]Totals{"a": tcp(14), "b": tcp(3)}}
	later := Ledger{Opened: true, Newest: m3,
		Maps:     map[MapID]Booked{m1: {tcp(6), []string{"a"}}, m2: {tcp(9), []string{"b"}}, m3: {tcp(1), nil}},
		Accounts: map[string]Totals{"a": tcp(15), "b": tcp(3)}}
	for name, saved := range map[string]Ledger{
		"as it was":         later,
		"emptied":           {},
		"an account halved": {Opened: true, Newest: m3, Maps: later.Maps, Accounts: map[string]Totals{"a": tcp(7), "b": tcp(3)}},
		"a reading lowered": {Opened: true, Newest: m3, Maps: map[MapID]Booked{m1: {tcp(2), nil}}, Accounts: later.Accounts},
	} {
		if diff := cmp.Diff(later, saved.Or(later)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if diff := cmp.Diff(later, later.Or(older)); diff != "" {
		t.Errorf("saved by another agent since (-want +got):\n%s", diff)
	}
}

func TestAMapThatWasMetCountsForThoseWhoSelectedItThen(t *testing.T) {
	m1, m2 := MapID{"boot1", 1}, MapID{"boot1", 2}
	for name, tc := range map[string]struct {
		unopened, gone bool // the ledger; the interface, when it is met
		newest         MapID
		met            bool
		want           map[string]uint64
	}{
		"its interface is gone at the booking": {met: true, want: map[string]uint64{"a": 7}},
		"its interface was gone already":       {gone: true, want: map[string]uint64{}},
		"it is no newer than what was booked":  {newest: m2, want: map[string]uint64{}},
		"the ledger is not open":               {unopened: true, want: map[string]uint64{}},
	} {
		index := map[bool]int{false: 2}[tc.gone]
		l := Ledger{Opened: !tc.unopened, Newest: tc.newest, Maps: map[MapID]Booked{}}
		met := l.Meet([]Reading{{Map: m1, Index: index, Totals: tcp(5)}}, map[int][]string{2: {"a"}})
		got := packets(l.Next([]Reading{{Map: m1, Totals: tcp(7)}}, nil, []string{"a"}))
		if met != tc.met || !maps.Equal(got, tc.want) {
			t.Errorf("%s: met %v, booked %v, want %v, %v", name, met, got, tc.met, tc.want)
		}
	}
}
