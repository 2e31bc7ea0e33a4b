package traffic

import (
	"maps"
	"slices"
)

// Ledger is what is known of the past on one node: what each map held when it was last booked and for whom it
// counts, and the account of each counter. It is the whole memory of an agent; it is saved as one object, so
// that what is booked and what it was booked from never part.
type Ledger struct {
	// Opened is false only for a ledger that was never saved. Maps that exist at that moment may have been
	// booked in an earlier ledger that is gone, so their past is nobody's. Every map that turns up later was
	// made later, and is booked from its first packet.
	Opened bool
	// Newest is the last made of the maps that were ever booked: within one life of the kernel their IDs grow, for
	// two billion maps. A map that is not among Maps and no newer was booked before, was out of sight, and is back.
	Newest   MapID
	Maps     map[MapID]Booked
	Accounts map[string]Totals // by the UID of the counter
}

// Booked is the state of one map in the ledger.
type Booked struct {
	Totals   Totals   // what has been booked: the map's reading at that time
	Counters []string // the UIDs of the counters that the map counts for from then on, sorted
}

// Next returns the ledger after the readings are booked. What a map counted since it was last booked goes to the
// counters that it counted for then, so a counter never gets what came before it. A map that is new goes to the
// counters that select its interface now. A map that is not among the readings is gone; its counts stay in the
// accounts. Should it come back, it counts from then on: what it held was booked, but for what it counted unseen.
//
// selected holds, by interface index, the UIDs of the counters that select that interface from now on. listed
// holds the UIDs of all counters that keep an account, selecting or not; the accounts of all others go.
func (l Ledger) Next(readings []Reading, selected map[int][]string, listed []string) Ledger {
	next := Ledger{Opened: true, Newest: l.Newest, Maps: map[MapID]Booked{}, Accounts: map[string]Totals{}}
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
			credit(uid, Totals{}) // an account is open from the moment that its counter selects something
		}
		next.Maps[r.Map] = Booked{Totals: r.Totals.Max(before.Totals), Counters: counters}
		if r.Map.newerThan(next.Newest) {
			next.Newest = r.Map
		}
	}
	return next
}

// Meet enters the maps that were made since the ledger was saved, with nothing booked, for the counters that select
// their interface now, and reports whether there are any. So a ledger in memory knows for whom a map has counted whose
// interface is gone before the next booking.
func (l Ledger) Meet(readings []Reading, selected map[int][]string) (met bool) {
	for _, r := range readings {
		if _, known := l.Maps[r.Map]; !known && l.Opened && r.Index != 0 && r.Map.newerThan(l.Newest) {
			l.Maps[r.Map] = Booked{Counters: slices.Sorted(slices.Values(selected[r.Index]))}
			met = true
		}
	}
	return met
}

// Or returns the ledger with what the other one knows better. Both are of one node and of one history, in which nothing
// falls, so what is more is later.
func (l Ledger) Or(other Ledger) Ledger {
	or := Ledger{Opened: l.Opened || other.Opened, Newest: l.Newest, Maps: map[MapID]Booked{}, Accounts: map[string]Totals{}}
	maps.Copy(or.Maps, other.Maps)
	maps.Copy(or.Accounts, other.Accounts)
	if other.Newest.newerThan(l.Newest) {
		or.Newest = other.Newest
	}
	for id, b := range l.Maps {
		if theirs, known := other.Maps[id]; !known || b.Totals.Max(theirs.Totals) == b.Totals {
			or.Maps[id] = b
		}
	}
	for uid, account := range l.Accounts {
		or.Accounts[uid] = account.Max(other.Accounts[uid])
	}
	return or
}

// newerThan reports that the map was made after the other one, or in another life of the kernel.
func (m MapID) newerThan(other MapID) bool { return m.Boot != other.Boot || m.ID > other.ID }
