// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// While no BPF file system is mounted, the pins are not visible. Nothing can be attached then, but what is attached may continue to
// count: another mount may hide the file system, or it is mounted elsewhere too. So a pass attaches, reads and detaches
// nothing, reports the selected interfaces as failed, and keeps what is saved about the maps. When the pins are visible again,
// counting continues as after a restart of the agent.

// allFailed returns the outcome of a pass in which nothing can be attached or detached, for one reason.
func (o outcome) allFailed(why error) outcome {
	o.detach, o.failed = nil, map[int]error{}
	for _, w := range o.want {
		o.failed[w.Index] = why
	}
	return o
}

// keep returns the ledger of a pass that does not see the pins.
func (a *Agent) keep(state *v1alpha1.XDPNodeState, before traffic.Ledger) (traffic.Ledger, error) {
	if !before.Opened {
		newest, err := a.Datapath.NewestMap()
		if err != nil {
			return traffic.Ledger{}, fmt.Errorf("find the newest map: %w", err)
		}
		before = before.OpenAt(newest)
	}
	return before.Keep(a.Info.BootID, listed(state.Spec)), nil
}

// hiddenEntries returns the entries of the interfaces that are wanted, and of all maps in the ledger. A map has the interface that
// it had in the saved report. If a counter for which it counts still selects that interface, the entry is the failure of the
// interface. Otherwise the map is to be detached when it is visible again.
func hiddenEntries(saved []v1alpha1.NodeInterface, s nodeSnapshot, o outcome, ledger traffic.Ledger) []v1alpha1.NodeInterface {
	byIndex := map[int]plan.Interface{}
	for _, i := range s.interfaces {
		byIndex[i.Index] = i
	}
	wanted := map[int]plan.Attachment{}
	for _, w := range o.want {
		wanted[w.Index] = w
	}
	failed := func(e v1alpha1.NodeInterface, w plan.Attachment) v1alpha1.NodeInterface {
		e.State, e.RequestedMode = v1alpha1.InterfaceFailed, v1alpha1.AttachMode(w.Mode)
		e.Reason, e.Message = failure(o.failed[w.Index], byIndex[w.Index])
		return e
	}
	var list []v1alpha1.NodeInterface
	reported := map[int][]string{} // counters, by the index of the interface
	byID := func(x, y traffic.MapID) int { return cmp.Compare(x.ID, y.ID) }
	for _, id := range slices.SortedFunc(maps.Keys(ledger.Maps), byID) {
		state := ledger.Maps[id]
		e := v1alpha1.NodeInterface{State: v1alpha1.InterfaceDetaching}
		at := slices.IndexFunc(saved, func(e v1alpha1.NodeInterface) bool { return e.Map == int64(id.ID) })
		if at >= 0 {
			if i, ok := byIndex[int(saved[at].Index)]; ok {
				e = entry(i)
				e.State = v1alpha1.InterfaceDetaching
				w, ok := wanted[i.Index]
				if ok && slices.ContainsFunc(state.Counters, func(uid string) bool { return slices.Contains(o.selected[i.Index], uid) }) {
					e = failed(e, w)
					reported[i.Index] = append(reported[i.Index], state.Counters...)
				}
			}
		}
		setMap(&e, id.ID, state)
		list = append(list, e)
	}
	for _, w := range o.want {
		others := slices.DeleteFunc(slices.Clone(o.selected[w.Index]), func(uid string) bool { return slices.Contains(reported[w.Index], uid) })
		if len(others) == 0 {
			continue
		}
		e := failed(entry(byIndex[w.Index]), w)
		e.Counters = uids(others)
		list = append(list, e)
	}
	return list
}

// logHidden logs when the pins disappear and appear, and records it for the liveness check.
func (a *Agent) logHidden(ctx context.Context, hidden error) {
	if !a.passTimes.hidden(hidden != nil, a.Clock.Now()) {
		return
	}
	if hidden != nil {
		ctrl.LoggerFrom(ctx).Info("BPF file system not visible, nothing can be attached", "error", hidden.Error())
	} else {
		ctrl.LoggerFrom(ctx).Info("BPF file system visible")
	}
}
