// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// selections returns what the active counters ask of this node, in the order of the spec, which is that of age.
func selections(spec v1alpha1.XDPNodeStateSpec) []plan.Selection {
	var selections []plan.Selection
	for _, c := range spec.Counters {
		if c.Inactive {
			continue
		}
		selections = append(selections, plan.Selection{
			Counter:       string(c.UID),
			Primary:       c.Primary,
			Names:         c.Names,
			Exclude:       c.Exclude,
			Mode:          plan.Mode(cmp.Or(c.AttachMode, v1alpha1.AttachAuto)),
			ViaDispatcher: c.Coexistence == v1alpha1.CoexistenceDispatcher,
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

// save writes the status if nobody has written the state since. The spec is left out, which the API server ignores here.
func (a *Agent) save(ctx context.Context, state *v1alpha1.XDPNodeState, status v1alpha1.XDPNodeStateStatus) error {
	next := &v1alpha1.XDPNodeState{Status: status}
	next.Name, next.UID, next.ResourceVersion = state.Name, state.UID, state.ResourceVersion
	raw, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("save node state: %w", err)
	}
	next.Status.ReportBytes = reportBytes(state.Status.ReportBytes, len(raw))
	err = a.Client.Status().Update(ctx, next)
	a.passMetrics.write(err)
	a.schedule.wrote(state.ResourceVersion, apierrors.IsConflict(err), err, a.Clock.Now())
	if err != nil {
		return fmt.Errorf("save node state: %w", err)
	}
	return nil
}

// reportBytes returns what status.reportBytes is for a report of that size. It keeps its value while it fits, so that the
// interval that follows from it does not change with every digit.
func reportBytes(saved int32, size int) int32 {
	if n := int32(min(size, math.MaxInt32/2)); n > saved || n < saved/4*3 {
		return n + n/8
	}
	return saved
}

// ledger returns what is known of the node: what the state holds, and what the agent remembers of it.
func (a *Agent) ledger(state *v1alpha1.XDPNodeState) (traffic.Ledger, error) {
	saved, err := ledgerOf(state.Status)
	switch {
	case err != nil || a.last.state != state.UID:
		return saved, err
	case a.schedule.replaced == state.ResourceVersion: // the cache is behind: it may have accounts of counters that are gone
		return a.last.ledger.Merge(traffic.Ledger{}), nil // a copy
	default: // nobody else writes the status, but somebody may have edited it
		return saved.Merge(a.last.ledger), nil
	}
}

// ledgerOf reads the ledger back from a saved status.
func ledgerOf(status v1alpha1.XDPNodeStateStatus) (l traffic.Ledger, err error) {
	l = traffic.Ledger{
		Opened:   status.ObservedGeneration > 0,
		Maps:     map[traffic.MapID]traffic.MapState{},
		Accounts: map[string]traffic.Totals{},
	}
	mapID := func(id int64) (traffic.MapID, error) {
		if id < 0 || id > math.MaxUint32 || status.Agent == nil {
			return traffic.MapID{}, fmt.Errorf("saved state: map %d is no map of a known boot", id)
		}
		return traffic.MapID{Boot: status.Agent.BootID, ID: uint32(id)}, nil
	}
	if status.NewestMap != 0 {
		if l.Newest, err = mapID(status.NewestMap); err != nil {
			return l, err
		}
	}
	for _, i := range status.Interfaces {
		if i.Map == 0 {
			continue
		}
		id, err := mapID(i.Map)
		if err != nil {
			return l, err
		}
		var counters []string
		for _, uid := range i.Counters {
			counters = append(counters, string(uid))
		}
		l.Maps[id] = traffic.MapState{Totals: v1alpha1.TotalsOf(i.Counts), Counters: counters}
	}
	for _, account := range status.Accounts {
		l.Accounts[string(account.UID)] = v1alpha1.TotalsOf(account.Counts)
	}
	return l, nil
}
