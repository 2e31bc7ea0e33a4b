// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/internal/format"
)

// outcome is what was planned and what came of it.
type outcome struct {
	want     []plan.Attachment
	selected map[int][]string // counters by interface index
	rejected []plan.Rejected
	failed   map[int]error // by interface index
	detach   []plan.Attachment
}

// report returns the status to save after a pass.
func (a *Agent) report(state *v1alpha1.XDPNodeState, interfaces []v1alpha1.NodeInterface, before, after traffic.Ledger) v1alpha1.XDPNodeStateStatus {
	now := metav1.NewMicroTime(a.Clock.Now())
	info := a.Info
	reported, omitted := omit(interfaces)
	status := v1alpha1.XDPNodeStateStatus{
		ObservedGeneration: state.Generation,
		ReportTime:         &now,
		ReportBytes:        state.Status.ReportBytes,
		Agent:              &info,
		Interfaces:         reported,
		OmittedInterfaces:  omitted,
		Accounts:           accounts(state, before, after, now.Time),
		Conditions:         slices.Clone(state.Status.Conditions),
	}
	if after.Newest.Boot == a.Info.BootID {
		status.NewestMap = int64(after.Newest.ID)
	}
	next := metav1.NewTime(v1alpha1.NextReportTime(now.Time, state.ReportInterval(), status.Accounts))
	status.NextReportTime = &next
	ready := readiness(state.Spec, interfaces)
	ready.ObservedGeneration = state.Generation
	meta.SetStatusCondition(&status.Conditions, ready)
	return status
}

// interfaces returns the entry of each interface that is wanted, not counted at the wish of a counter, or still holds counts,
// sorted by index. status.interfaces can have fewer: see omit.
func (a *Agent) interfaces(saved v1alpha1.XDPNodeStateStatus, s nodeSnapshot, o outcome, ledger traffic.Ledger) []v1alpha1.NodeInterface {
	var list []v1alpha1.NodeInterface
	if s.hidden != nil {
		list = hiddenEntries(saved.Interfaces, s, o, ledger)
	} else {
		list = a.entries(s, o, ledger)
	}
	list = append(list, rejections(o.rejected, byIndex(s.interfaces))...)
	for i := range list {
		list[i].Message = format.Printable(list[i].Message)
	}
	slices.SortStableFunc(list, func(x, y v1alpha1.NodeInterface) int { return cmp.Compare(x.Index, y.Index) })
	return list
}

func entry(i plan.Interface) v1alpha1.NodeInterface {
	return v1alpha1.NodeInterface{Name: i.Name, Index: int32(i.Index), Driver: i.Driver, MTU: int32(i.MTU)}
}

// setMap adds a map and its state in the ledger to an entry.
func setMap(e *v1alpha1.NodeInterface, id uint32, state traffic.MapState) {
	e.Map, e.Counts, e.Counters = int64(id), v1alpha1.CountsOf(state.Totals), uids(state.Counters)
}

// entries returns the entries of the interfaces that are wanted or still hold counts.
func (a *Agent) entries(s nodeSnapshot, o outcome, ledger traffic.Ledger) []v1alpha1.NodeInterface {
	var list []v1alpha1.NodeInterface
	booked := func(e *v1alpha1.NodeInterface, id uint32) {
		setMap(e, id, ledger.Maps[traffic.MapID{Boot: a.Info.BootID, ID: id}])
	}
	detaching := map[uint32]bool{}
	for _, d := range o.detach {
		detaching[d.Map] = true
	}
	present := byIndex(s.interfaces)
	counting := map[int]plan.Attachment{} // by the index of the interface that is being counted
	for _, h := range s.attached {
		i := present[h.Index]
		live := h.Live(i)
		if live && !detaching[h.Map] {
			counting[h.Index] = h
			continue
		}
		e := v1alpha1.NodeInterface{}
		if live {
			e = entry(i)
		}
		e.State = v1alpha1.InterfaceDetaching
		booked(&e, h.Map)
		list = append(list, e)
	}
	for _, w := range o.want {
		i, ok := present[w.Index]
		if !ok {
			continue
		}
		e := entry(i)
		e.RequestedMode = v1alpha1.AttachMode(w.Mode)
		if h, ok := counting[i.Index]; ok {
			e.State, e.Mode = v1alpha1.InterfaceAttached, v1alpha1.AttachMode(i.Hook.Mode)
			if w.Mode != plan.Auto {
				h.Refused = nil // nobody asks for native mode any more
			}
			e.Reason, e.Message = attachedRemark(h, w, i, s.tunnels)
			if h.ViaDispatcher {
				e.Coexistence = v1alpha1.CoexistenceDispatcher
			}
			booked(&e, h.Map)
			e.SwitchedOff = switchedOff(h.SwitchedOff)
		} else {
			e.State, e.Counters = v1alpha1.InterfaceFailed, uids(o.selected[i.Index])
			e.Reason, e.Message = failure(o.failed[i.Index], i)
		}
		list = append(list, e)
	}
	return list
}

// switchedOff returns what an entry has about switched off features: not more than the API allows.
func switchedOff(list []plan.SwitchedOff) (off []v1alpha1.SwitchedOffFeatures) {
	for _, s := range list[:min(len(list), v1alpha1.MaxSwitchedOffInterfaces)] {
		features := s.Features[:min(len(s.Features), v1alpha1.MaxSwitchedOffFeatures)]
		off = append(off, v1alpha1.SwitchedOffFeatures{Interface: format.Printable(s.Interface), Features: features})
	}
	return off
}

// rejections returns the entries of interfaces that counters select and that are not counted for them. If several counters have
// the same entry for an interface, it is one entry with all of them.
func rejections(list []plan.Rejected, present map[int]plan.Interface) []v1alpha1.NodeInterface {
	type key struct {
		index   int
		state   v1alpha1.InterfaceState
		mode    v1alpha1.AttachMode
		message string
	}
	var entries []v1alpha1.NodeInterface
	known := map[key]int{} // the position in entries
	for _, d := range list {
		i, ok := present[d.Index]
		if !ok {
			continue
		}
		e := rejected(entry(i), d)
		k := key{d.Index, e.State, e.RequestedMode, e.Message}
		if at, ok := known[k]; ok {
			entries[at].Counters = append(entries[at].Counters, e.Counters...)
			continue
		}
		known[k] = len(entries)
		entries = append(entries, e)
	}
	return entries
}

// rejected completes the entry of an interface that a counter selects and that is not counted for it.
func rejected(e v1alpha1.NodeInterface, d plan.Rejected) v1alpha1.NodeInterface {
	e.RequestedMode, e.Counters = v1alpha1.AttachMode(d.Wants), uids([]string{d.Counter})
	e.State, e.Reason = v1alpha1.InterfaceFailed, reasonOf(d.Why)
	switch {
	case errors.Is(d.Why, plan.ErrCountedElsewhere):
		e.State = v1alpha1.InterfaceSkipped
		e.Message = "its frames are counted at " + format.FirstFew(d.At)
	case errors.Is(d.Why, plan.ErrNoMembers):
		e.State, e.Message = v1alpha1.InterfaceSkipped, d.Why.Error()+"; members are counted as soon as they join"
	case errors.Is(d.Why, plan.ErrModeConflict):
		e.Message = v1alpha1.FailureMessage(e.Reason, fmt.Sprintf("an older XDPCounter has this interface in %s mode", d.Has), e.Name)
	default:
		e.Message = v1alpha1.FailureMessage(e.Reason, d.Why.Error(), e.Name)
	}
	return e
}

// failure returns why an interface that is wanted is not counted. Without an error it is attached in the next pass.
func failure(err error, i plan.Interface) (reason, message string) {
	if err == nil {
		return v1alpha1.ReasonPending, "about to be attached"
	}
	reason = reasonOf(err)
	return reason, failureMessage(reason, err, i)
}

// shortest is the least time between two reports from which rates are made. A report that comes sooner, as a change of
// state does, tells those of the one before: the mean of a moment would jump.
const shortest = time.Second

// accounts returns the account of each counter that has one, in the order of the spec.
func accounts(state *v1alpha1.XDPNodeState, before, after traffic.Ledger, now time.Time) []v1alpha1.CounterAccount {
	var elapsed time.Duration
	if last := state.Status.ReportTime; last != nil {
		elapsed = now.Sub(last.Time)
	}
	var list []v1alpha1.CounterAccount
	for _, c := range state.Spec.Counters {
		totals, ok := after.Accounts[string(c.UID)]
		if !ok {
			continue
		}
		rates := totals.Since(before.Accounts[string(c.UID)]).RatesOver(elapsed)
		if elapsed >= 0 && elapsed < shortest {
			rates = ratesBefore(state, c.UID)
		}
		list = append(list, v1alpha1.CounterAccount{UID: c.UID, Generation: c.Generation, Counts: v1alpha1.CountsAndRatesOf(totals, rates)})
	}
	return list
}

// ratesBefore returns the rates in the latest report.
func ratesBefore(state *v1alpha1.XDPNodeState, uid types.UID) traffic.Rates {
	for _, a := range state.Status.Accounts {
		if a.UID == uid {
			return v1alpha1.RatesOf(a.Counts)
		}
	}
	return traffic.Rates{}
}

// readiness returns the Ready condition of the node.
func readiness(spec v1alpha1.XDPNodeStateSpec, interfaces []v1alpha1.NodeInterface) metav1.Condition {
	var attached int
	var failureNames, empty []string
	for _, i := range interfaces {
		switch i.State {
		case v1alpha1.InterfaceAttached:
			attached++
		case v1alpha1.InterfaceFailed:
			failureNames = append(failureNames, format.Printable(i.Name)+" ("+i.Reason+")")
		case v1alpha1.InterfaceSkipped:
			if i.Reason == v1alpha1.ReasonNoMembers {
				empty = append(empty, format.Printable(i.Name))
			}
		case v1alpha1.InterfaceDetaching:
		}
	}
	active := slices.ContainsFunc(spec.Counters, func(c v1alpha1.NodeCounter) bool { return !c.Inactive })
	c := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse}
	switch {
	case len(failureNames) > 0:
		c.Reason = v1alpha1.ReasonPartiallyAttached
		if attached == 0 {
			c.Reason = v1alpha1.ReasonNothingAttached
		}
		c.Message = fmt.Sprintf("%d of %s not counted: %s",
			len(failureNames), format.Count(attached+len(failureNames), "interface is", "interfaces are"), format.FirstFew(failureNames))
	case active && attached == 0:
		c.Reason, c.Message = v1alpha1.ReasonNoInterfacesMatched, "no interface of this node is selected"
		if len(empty) > 0 {
			c.Message = "only interfaces without members are selected: " + format.FirstFew(empty)
		}
	case !active:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonSuspended, "no active XDPCounter selects this node; the totals are kept"
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonAllInterfacesAttached, format.Count(attached, "interface is", "interfaces are")+" being counted"
	}
	return c
}

func uids(list []string) []types.UID {
	var uids []types.UID
	for _, s := range list {
		uids = append(uids, types.UID(s))
	}
	return uids
}
