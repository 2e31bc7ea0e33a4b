// SPDX-License-Identifier: Apache-2.0

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

// tcp returns the totals of n TCP packets of 100 bytes.
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

func TestLedgerBook(t *testing.T) {
	m1, m2 := MapID{"boot1", 1}, MapID{"boot1", 2}
	type pass struct {
		readings []Reading
		selected map[int][]string
		listed   []string // default: the selected ones
	}
	at := func(m MapID, index int, n uint64) Reading { return Reading{Map: m, Index: index, Totals: tcp(n)} }
	eth0For := func(uids ...string) map[int][]string { return map[int][]string{2: uids} }

	for name, tc := range map[string]struct {
		unopened bool
		passes   []pass
		want     map[string]uint64
	}{
		"a new map is booked from its first packet": {
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
		"a counter that is added to a counted interface starts at zero": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 1000)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 2, 1001)}, selected: eth0For("a", "b")},
				{readings: []Reading{at(m1, 2, 1003)}, selected: eth0For("a", "b")},
			},
			want: map[string]uint64{"a": 1003, "b": 2},
		},
		"a counter that selects an interface again does not receive what was counted in between": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 10)}, selected: eth0For("a", "b")},
				{readings: []Reading{at(m1, 2, 20)}, selected: eth0For("b"), listed: []string{"a", "b"}},
				{readings: []Reading{at(m1, 2, 30)}, selected: eth0For("a", "b")},
				{readings: []Reading{at(m1, 2, 35)}, selected: eth0For("a", "b")},
			},
			want: map[string]uint64{"a": 25, "b": 35},
		},
		"a map whose reading was missing once is not booked twice": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 10), at(m2, 3, 1)}, selected: eth0For("a")},
				{readings: []Reading{at(m2, 3, 1)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 2, 15), at(m2, 3, 1)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 2, 17), at(m2, 3, 1)}, selected: eth0For("a")},
			},
			want: map[string]uint64{"a": 12},
		},
		"a map with a lower ID after a reboot is a new map": {
			passes: []pass{
				{readings: []Reading{at(m2, 2, 10)}, selected: eth0For("a")},
				{readings: nil, selected: eth0For("a")},
				{readings: []Reading{at(MapID{"boot2", 1}, 2, 5)}, selected: eth0For("a")},
			},
			want: map[string]uint64{"a": 15},
		},
		"the account of a deleted counter is removed": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 10)}, selected: eth0For("a", "b")},
				{readings: []Reading{at(m1, 2, 12)}, selected: eth0For("b")},
			},
			want: map[string]uint64{"b": 12},
		},
		"a map with the same ID after a reboot is a new map": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 10)}, selected: eth0For("a")},
				{readings: []Reading{at(MapID{"boot2", 1}, 2, 50)}, selected: eth0For("a")},
			},
			want: map[string]uint64{"a": 60},
		},
		"a reused interface index belongs to another map": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 10)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 0, 11), at(m2, 2, 3)}, selected: eth0For("b"), listed: []string{"a", "b"}},
			},
			want: map[string]uint64{"a": 11, "b": 3},
		},
		"the map of a removed interface is booked to its last packet": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 10)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 0, 17)}, listed: []string{"a"}},
				{listed: []string{"a"}},
			},
			want: map[string]uint64{"a": 17},
		},
		"a map whose totals decrease is booked again only above the highest reading": {
			passes: []pass{
				{readings: []Reading{at(m1, 2, 10)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 2, 4)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 2, 12)}, selected: eth0For("a")},
			},
			want: map[string]uint64{"a": 12},
		},
		"a ledger that was never saved does not book what existing maps have counted": {
			unopened: true,
			passes: []pass{
				{readings: []Reading{at(m1, 2, 1000)}, selected: eth0For("a")},
				{readings: []Reading{at(m1, 2, 1007)}, selected: eth0For("a")},
			},
			want: map[string]uint64{"a": 7},
		},
		"a counter that selects an interface without traffic has an empty account": {
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
				l = l.Book(p.readings, p.selected, listed)
			}
			if diff := cmp.Diff(tc.want, packets(l)); diff != "" {
				t.Errorf("accounts (-want +got):\n%s", diff)
			}
		})
	}
}

// Compares the accounts with a model that receives every packet, over random sequences of traffic, selections, added and
// removed interfaces, reboots, crashes before a save, saves, and saves while the maps cannot be read.
func TestLedgerAgreesWithModelInRandomHistories(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	type attached struct {
		id     MapID
		index  int
		count  uint64
		counts []string // the counters that it counts for since the last save
		unsent uint64   // since the last save
	}
	for history := range 300 {
		saved := Ledger{Opened: true}
		want := map[string]uint64{}
		var held []*attached
		nextID, boot := uint32(0), 0
		allCounters := []string{"a", "b", "c"}
		selected := map[int][]string{}
		choose := func() []string {
			var some []string
			for _, uid := range allCounters {
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
			case 1: // an interface is removed; its pinned map can be read until the agent removes it
				if len(held) > 0 {
					held[random.IntN(len(held))].index = 0
				}
			case 2: // a reboot: counts that were not saved are lost
				held, boot, nextID = nil, boot+1, 0
			case 3: // the selection changes
				selected = map[int][]string{1: choose(), 2: choose(), 3: choose(), 4: choose()}
			}
			for _, m := range held {
				n := uint64(random.IntN(5))
				m.count += n
				m.unsent += n
			}
			if random.IntN(5) == 0 { // the maps cannot be read, and the ledger is saved
				saved = saved.Keep(fmt.Sprint("boot", boot), allCounters)
				continue
			}
			var readings []Reading
			for _, m := range held {
				readings = append(readings, Reading{Map: m.id, Index: m.index, Totals: tcp(m.count)})
			}
			next := saved.Book(readings, selected, allCounters)
			if random.IntN(3) == 0 {
				continue // a crash, or the API server is unreachable: nothing is saved
			}
			for uid, account := range saved.Accounts {
				if next.Accounts[uid].Max(account) != next.Accounts[uid] {
					t.Fatalf("history %d: account %s decreased", history, uid)
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
			held = slices.DeleteFunc(held, func(m *attached) bool { return m.index == 0 }) // the agent removes it after the save
		}
	}
}

// For random ledgers and arguments: booking the same readings twice adds nothing, their order does not matter, listed accounts
// do not decrease, and accounts that are not listed are removed.
func TestLedgerBookIsIdempotent(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	allCounters := []string{"a", "b", "c", "d"}
	some := func() (uids []string) {
		for _, uid := range allCounters {
			if random.IntN(2) == 0 {
				uids = append(uids, uid)
			}
		}
		return uids
	}
	for range 300 {
		before := Ledger{Opened: random.IntN(4) > 0, Maps: map[MapID]MapState{}, Accounts: map[string]Totals{}}
		for _, uid := range some() {
			before.Accounts[uid] = tcp(random.Uint64N(100))
		}
		var readings []Reading
		for id := range uint32(4) {
			m := MapID{"boot", id}
			if random.IntN(2) == 0 {
				before.Maps[m] = MapState{Totals: tcp(random.Uint64N(100)), Counters: some()}
			}
			if random.IntN(4) > 0 {
				readings = append(readings, Reading{Map: m, Index: random.IntN(3), Totals: tcp(random.Uint64N(200))})
			}
		}
		selected, listed := map[int][]string{1: some(), 2: some()}, some()

		next := before.Book(readings, selected, listed)
		if repeated := next.Book(readings, selected, listed); !reflect.DeepEqual(next, repeated) {
			t.Fatalf("booked twice (-once +twice):\n%s", cmp.Diff(next, repeated))
		}
		random.Shuffle(len(readings), func(i, j int) { readings[i], readings[j] = readings[j], readings[i] })
		if shuffled := before.Book(readings, selected, listed); !reflect.DeepEqual(next, shuffled) {
			t.Fatalf("readings in another order (-first +second):\n%s", cmp.Diff(next, shuffled))
		}
		for uid, account := range before.Accounts {
			if slices.Contains(listed, uid) && next.Accounts[uid].Max(account) != next.Accounts[uid] {
				t.Fatalf("account %s decreased", uid)
			}
		}
		for uid := range next.Accounts {
			if !slices.Contains(listed, uid) {
				t.Fatalf("account %s is not listed but was not removed", uid)
			}
		}
	}
}

// Values that somebody removed from the saved ledger are restored from the ledger in memory, and newer saved values are kept.
func TestLedgerMerge(t *testing.T) {
	m1, m2, m3 := MapID{"boot", 1}, MapID{"boot", 2}, MapID{"boot", 3}
	older := Ledger{Opened: true, Newest: m2,
		Maps:     map[MapID]MapState{m1: {tcp(5), []string{"a"}}, m2: {tcp(9), []string{"a"}}},
		Accounts: map[string]Totals{"a": tcp(14), "b": tcp(3)}}
	later := Ledger{Opened: true, Newest: m3,
		Maps:     map[MapID]MapState{m1: {tcp(6), []string{"a"}}, m2: {tcp(9), []string{"b"}}, m3: {tcp(1), nil}},
		Accounts: map[string]Totals{"a": tcp(15), "b": tcp(3)}}
	for name, saved := range map[string]Ledger{
		"the saved ledger is unchanged": later,
		"the saved ledger was emptied":  {},
		"a saved account was reduced":   {Opened: true, Newest: m3, Maps: later.Maps, Accounts: map[string]Totals{"a": tcp(7), "b": tcp(3)}},
		"a saved map state was reduced": {Opened: true, Newest: m3, Maps: map[MapID]MapState{m1: {tcp(2), nil}}, Accounts: later.Accounts},
	} {
		if diff := cmp.Diff(later, saved.Merge(later)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if diff := cmp.Diff(later, later.Merge(Ledger{})); diff != "" {
		t.Errorf("merged with an empty ledger (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(later, later.Merge(older)); diff != "" {
		t.Errorf("merged with an older ledger (-want +got):\n%s", diff)
	}
}

func TestLedgerKeep(t *testing.T) {
	m1, m2, old := MapID{"boot1", 1}, MapID{"boot1", 2}, MapID{"boot0", 7}
	for name, tc := range map[string]struct {
		before Ledger
		listed []string
		want   Ledger
	}{
		"everything stays": {
			before: Ledger{Opened: true, Newest: m2, Maps: map[MapID]MapState{m1: {tcp(5), []string{"a"}}, m2: {}}, Accounts: map[string]Totals{"a": tcp(9)}},
			listed: []string{"a", "b"},
			want:   Ledger{Opened: true, Newest: m2, Maps: map[MapID]MapState{m1: {tcp(5), []string{"a"}}, m2: {}}, Accounts: map[string]Totals{"a": tcp(9)}},
		},
		"the maps of an earlier boot are removed": {
			before: Ledger{Opened: true, Newest: old, Maps: map[MapID]MapState{old: {tcp(5), []string{"a"}}, m1: {}}, Accounts: map[string]Totals{"a": tcp(9)}},
			listed: []string{"a"},
			want:   Ledger{Opened: true, Newest: old, Maps: map[MapID]MapState{m1: {}}, Accounts: map[string]Totals{"a": tcp(9)}},
		},
		"the account of a deleted counter is removed": {
			before: Ledger{Opened: true, Accounts: map[string]Totals{"a": tcp(9), "b": tcp(1)}},
			listed: []string{"b"},
			want:   Ledger{Opened: true, Maps: map[MapID]MapState{}, Accounts: map[string]Totals{"b": tcp(1)}},
		},
	} {
		if diff := cmp.Diff(tc.want, tc.before.Keep("boot1", tc.listed)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestLedgerOpenAt(t *testing.T) {
	older, newest, newer := MapID{"boot1", 1}, MapID{"boot1", 2}, MapID{"boot1", 3}
	opened := Ledger{}.OpenAt(newest)
	eth0, a := map[int][]string{2: {"a"}}, []string{"a"}
	l := opened.Book([]Reading{{Map: older, Index: 2, Totals: tcp(1000)}, {Map: newer, Index: 2, Totals: tcp(7)}}, eth0, a)
	l = l.Book([]Reading{{Map: older, Index: 2, Totals: tcp(1004)}, {Map: newer, Index: 2, Totals: tcp(9)}}, eth0, a)
	if diff := cmp.Diff(map[string]uint64{"a": 4 + 9}, packets(l)); diff != "" || !opened.Opened {
		t.Errorf("opened %v, accounts (-want +got):\n%s", opened.Opened, diff)
	}
}

func TestLedgerAddNewMaps(t *testing.T) {
	m1, m2 := MapID{"boot1", 1}, MapID{"boot1", 2}
	for name, tc := range map[string]struct {
		unopened, gone bool // the ledger was never saved; the interface is removed already
		newest         MapID
		added          bool
		want           map[string]uint64
	}{
		"the interface is removed before the map is booked":  {added: true, want: map[string]uint64{"a": 7}},
		"the interface was removed before the map was added": {gone: true, want: map[string]uint64{}},
		"the map is older than the newest booked map":        {newest: m2, want: map[string]uint64{}},
		"the map is the newest one, which was given up":      {newest: m1, want: map[string]uint64{}},
		"the ledger was never saved":                         {unopened: true, want: map[string]uint64{}},
	} {
		index := map[bool]int{false: 2}[tc.gone]
		l := Ledger{Opened: !tc.unopened, Newest: tc.newest, Maps: map[MapID]MapState{}}
		added := l.AddNewMaps([]Reading{{Map: m1, Index: index, Totals: tcp(5)}}, map[int][]string{2: {"a"}})
		got := packets(l.Book([]Reading{{Map: m1, Totals: tcp(7)}}, nil, []string{"a"}))
		if added != tc.added || !maps.Equal(got, tc.want) {
			t.Errorf("%s: added %v and accounts %v, want %v and %v", name, added, got, tc.added, tc.want)
		}
	}
}
