// SPDX-License-Identifier: Apache-2.0

package plan

// Diff returns what has to be attached and what has to be detached to get from the present attachments to the wanted ones.
//
// An attachment is live while its interface has its program on the hook. That is no longer so if the interface was deleted or
// moved to another namespace, if its index was reused, or if the link was detached by another process. Attachments are
// detached if they are not live, not wanted, wanted in another mode, or wanted with a dispatcher and attached without or the
// other way round. The interface is attached again in a later pass, because the counts of the earlier attachment have to be
// saved first.
//
// Auto changes no mode only because the other one costs less: the kernel allows one mode at a time, so the program has to be
// detached for this, frames are missed meanwhile, and some drivers reset the device. What is attached natively stays so. Auto
// returns from generic to native mode if generic mode is not the first choice and native mode was not tried, which is so if
// Generic was asked for before; and if the cause of the refusal has visibly changed.
func Diff(have, want []Attachment, interfaces []Interface) (attach, detach []Attachment) {
	byIndex := map[int]Interface{}
	for _, i := range interfaces {
		byIndex[i.Index] = i
	}
	wanted := map[int]Attachment{}
	for _, w := range want {
		wanted[w.Index] = w
	}
	settled := map[int]bool{}
	for _, h := range have {
		w, ok := wanted[h.Index]
		if !ok || !h.Live(byIndex[h.Index]) || !h.meets(w, byIndex[h.Index].Hook.Mode) || h.ViaDispatcher != w.ViaDispatcher {
			detach = append(detach, h)
			settled[h.Index] = true
			continue
		}
		settled[h.Index] = !h.Outdated
	}
	for _, w := range want {
		if !settled[w.Index] {
			attach = append(attach, w)
		}
	}
	return attach, detach
}

// Live reports whether the interface has the attachment's program on its hook. With a dispatcher any program counts as this one:
// the dispatcher is replaced whenever a program joins or leaves, also between listing the attachments and the interfaces.
func (a Attachment) Live(i Interface) bool {
	if a.ViaDispatcher {
		return a.Index != 0 && a.Index == i.Index && i.Hook.Program != 0
	}
	return a.Index != 0 && a.Index == i.Index && a.Program != 0 && a.Program == i.Hook.Program
}

// meets reports whether an attachment in the attained mode does what is wanted.
func (a Attachment) meets(w Attachment, attained Mode) bool {
	if w.Mode == Auto && attained == Generic && !a.ViaDispatcher { // the mode of a dispatcher may be another program's choice
		return w.First == Generic || a.Refused != nil && !a.Improved
	}
	return w.Mode == Auto || w.Mode == attained
}
