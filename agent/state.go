package agent

import (
	"fmt"
	"math"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// selections returns what the active counters ask of this node, in the order of the spec, which is that of age.
func selections(spec v1alpha1.XDPNodeStateSpec) []plan.Selection {
	var selections []plan.Selection
	for _, c := range spec.Counters {
		if !c.Active {
			continue
		}
		selections = append(selections, plan.Selection{
			Counter: string(c.UID),
			Primary: c.Primary,
			Names:   c.Names,
			Exclude: c.Exclude,
			Mode:    plan.Mode(c.AttachMode),
		})
	}
	return selections
}

// listed returns the UIDs of all counters that keep an account here.
func listed(spec v1alpha1.XDPNodeStateSpec) []string {
	var uids []string
	for _, c := range spec.Counters {
		uids = append(uids, string(c.UID))
	}
	return uids
}

// ledgerOf reads the ledger back from a saved status.
func ledgerOf(status v1alpha1.XDPNodeStateStatus) (traffic.Ledger, error) {
	l := traffic.Ledger{
		Opened:   status.ObservedGeneration > 0,
		Maps:     map[traffic.MapID]traffic.Booked{},
		Accounts: map[string]traffic.Totals{},
	}
	for _, i := range status.Interfaces {
		if i.Map == 0 {
			continue
		}
		if i.Map < 0 || i.Map > math.MaxUint32 || status.Agent == nil {
			return l, fmt.Errorf("saved state of interface %s: map %d is no map of a known boot", i.Name, i.Map)
		}
		var counters []string
		for _, uid := range i.Counters {
			counters = append(counters, string(uid))
		}
		id := traffic.MapID{Boot: status.Agent.BootID, ID: uint32(i.Map)}
		l.Maps[id] = traffic.Booked{Totals: v1alpha1.TotalsOf(i.Counts), Counters: counters}
	}
	for _, account := range status.Accounts {
		l.Accounts[string(account.UID)] = v1alpha1.TotalsOf(account.Counts)
	}
	return l, nil
}
