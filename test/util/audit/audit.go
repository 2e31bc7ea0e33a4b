// SPDX-License-Identifier: Apache-2.0

// Package audit checks what must be true of every version of the objects: the parts sum up to the
// total, and nothing ever falls.
package audit

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// Highest are the highest totals so far: of XDPCounters by UID, and of accounts by the UIDs of node state and counter
// with a / between.
type Highest map[types.UID]traffic.Totals

// CheckCounter takes the next version of a counter. It returns an error if the protocols or the families do not sum up to
// the total, or a class is less than it ever was. A counter has no total until one was written.
func (h Highest) CheckCounter(x *v1alpha1.XDPCounter) error {
	var total, protocols, families [2]int64
	if x.Status.Total != nil {
		total = [2]int64{x.Status.Total.Packets, x.Status.Total.Bytes}
	}
	for _, p := range x.Status.Protocols {
		protocols[0] += p.Packets
		protocols[1] += p.Bytes
	}
	for _, f := range x.Status.Families {
		families[0] += f.Packets
		families[1] += f.Bytes
	}
	what := fmt.Sprintf("counter %s (%s), version %s", x.Name, x.UID, x.ResourceVersion)
	var wrong error
	if protocols != total || families != total {
		wrong = fmt.Errorf("%s: the protocols sum up to %v, the families to %v, the total is %v", what, protocols, families, total)
	}
	return errors.Join(wrong, h.grow(what, x.UID, v1alpha1.TotalsOfProtocols(x.Status.Protocols)))
}

// CheckNodeState takes the next version of a node state. It returns an error if a class of an account is less than it ever was.
func (h Highest) CheckNodeState(s *v1alpha1.XDPNodeState) error {
	var errs []error
	for _, account := range s.Status.Accounts {
		what := fmt.Sprintf("account %s of node state %s (%s), version %s", account.UID, s.Name, s.UID, s.ResourceVersion)
		errs = append(errs, h.grow(what, s.UID+"/"+account.UID, v1alpha1.TotalsOf(account.Counts)))
	}
	return errors.Join(errs...)
}

func (h Highest) grow(what string, key types.UID, now traffic.Totals) error {
	before := h[key]
	h[key] = now.Max(before)
	if now == h[key] {
		return nil
	}
	return fmt.Errorf("%s fell from %v to %v: %w", what, before.Sum(), now.Sum(), Difference(now, h[key]))
}

// Difference lists the classes that differ.
func Difference(got, want traffic.Totals) error {
	if got == want {
		return nil
	}
	text := ""
	for class := range traffic.Class(traffic.NumClasses) {
		if got[class] != want[class] && len(text) < 500 {
			text += fmt.Sprintf(" %s is %v, want %v;", class, got[class], want[class])
		}
	}
	return errors.New("totals differ:" + text)
}
