// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"maps"
	"slices"
)

// Ledger is the saved state of one agent: for each map the totals that are booked already and the counters that it counts
// for, and the account of each counter. It is saved in one object, so that accounts and booked totals are always consistent.
type Ledger struct {
	// Opened is false only for a ledger that was never saved. Maps that exist at that time may have been booked in an
	// earlier ledger that was lost, so what they have counted is not booked to any account. Every map that is found later was
	// created later, and is booked from its first packet.
	Opened bool
	// Newest is the map that was created last of all maps ever booked. Map IDs increase within one boot, for two billion
	// maps. So a map that is not in Maps and is not newer was booked before, and was missing from the readings in between.
	Newest   MapID
	Maps     map[MapID]MapState
	Accounts map[string]Totals // by the UID of the counter
}

// MapState is the state of one map in the ledger.
type MapState struct {
	Totals   Totals   // what is booked: the reading of the map at that time
	Counters []string // the UIDs of the counters that the map counts for since then, sorted
}

// Book returns the ledger after the readings are booked. What a map counted since it was last booked is added to the accounts
// of the counters that it counted for since then, so a counter does not receive what was counted before it selected the
// interface. All that a new map counted is added to the accounts of the counters that select its interface now. A map without
// a reading is removed from the ledger; what it counted stays in the accounts. If a reading of it appears again, it is booked
// from that reading on.
//
// selected maps interface indexes to the UIDs of the counters that select the interface from now on. listed holds the UIDs of
// all counters that have an account, whether they select an interface or not; other accounts are removed.
func (l Ledger) Book(readings []Reading, selected map[int][]string, listed []string) Ledger {
	next := Ledger{Opened: true, Newest: l.Newest, Maps: map[MapID]MapState{}, Accounts: map[string]Totals{}}
	for uid, account := range l.Accounts {
		if slices.Contains(listed, uid) {
			next.Accounts[uid] = account
		}
	}
	credit := func(uid string, growth Totals) {
		if slices.Contains(listed, uid) {
			next.Accounts[uid] = next.Accounts[uid].Plus(growth)
		}
	}
	for _, r := range readings {
		before, known := l.Maps[r.Map]
		counters := slices.Sorted(slices.Values(selected[r.Index]))
		switch {
		case known:
			growth := r.Totals.Since(before.Totals)
			for _, uid := range before.Counters {
				credit(uid, growth)
			}
		case l.Opened && r.Map.newerThan(l.Newest):
			for _, uid := range counters {
				credit(uid, r.Totals)
			}
		}
		for _, uid := range counters {
			credit(uid, Totals{}) // a counter has an account as soon as it selects an interface
		}
		next.Maps[r.Map] = MapState{Totals: r.Totals.Max(before.Totals), Counters: counters}
		if r.Map.newerThan(next.Newest) {
			next.Newest = r.Map
		}
	}
	return next
}

// Keep returns the ledger after a report that is made while no map can be read, although the maps may exist and count. It books
// nothing: the next Book does, as if there had been no report. Maps of another boot than the present one are removed, because they
// are gone, and accounts that are not listed, as by Book.
func (l Ledger) Keep(boot string, listed []string) Ledger {
	kept := Ledger{Opened: l.Opened, Newest: l.Newest, Maps: map[MapID]MapState{}, Accounts: map[string]Totals{}}
	for id, state := range l.Maps {
		if id.Boot == boot {
			kept.Maps[id] = state
		}
	}
	for uid, account := range l.Accounts {
		if slices.Contains(listed, uid) {
			kept.Accounts[uid] = account
		}
	}
	return kept
}

// OpenAt returns the ledger opened without readings, for a first report that is made while no map can be read. newest is a map that
// is newer than all that exist at that time. What these have counted until they are read is not booked, as if they had been read
// by the Book that opens a ledger.
func (l Ledger) OpenAt(newest MapID) Ledger {
	l.Opened, l.Newest = true, newest
	return l
}

// AddNewMaps adds the maps that were created since the ledger was saved to l.Maps, with nothing booked, for the counters that
// select their interface now. It reports whether there are any. A map that is added before its interface is removed can still
// be booked to these counters afterwards.
func (l Ledger) AddNewMaps(readings []Reading, selected map[int][]string) (added bool) {
	for _, r := range readings {
		if _, known := l.Maps[r.Map]; !known && l.Opened && r.Index != 0 && r.Map.newerThan(l.Newest) {
			l.Maps[r.Map] = MapState{Counters: slices.Sorted(slices.Values(selected[r.Index]))}
			added = true
		}
	}
	return added
}

// Merge returns a ledger with the newer values of both. Both must be of one agent. Totals never decrease, so the larger values
// are the newer ones.
func (l Ledger) Merge(other Ledger) Ledger {
	merged := Ledger{Opened: l.Opened || other.Opened, Newest: l.Newest, Maps: map[MapID]MapState{}, Accounts: map[string]Totals{}}
	maps.Copy(merged.Maps, other.Maps)
	maps.Copy(merged.Accounts, other.Accounts)
	if other.Newest != (MapID{}) && other.Newest.newerThan(l.Newest) {
		merged.Newest = other.Newest
	}
	for id, b := range l.Maps {
		if theirs, known := other.Maps[id]; !known || b.Totals.Max(theirs.Totals) == b.Totals {
			merged.Maps[id] = b
		}
	}
	for uid, account := range l.Accounts {
		merged.Accounts[uid] = account.Max(other.Accounts[uid])
	}
	return merged
}

// newerThan reports whether the map was created after the other one, or during another boot.
func (m MapID) newerThan(other MapID) bool { return m.Boot != other.Boot || m.ID > other.ID }
