package plan

// Diff returns what has to be attached and what given up, so that what there is becomes what is wanted.
//
// An attachment counts only while the interface that it names carries its program: an interface that went away,
// an index that was reused, a link that was cut by hand and an interface moved to another namespace all show in
// that. What counts no longer is given up, and so is what is not wanted, or wanted in another mode or shared otherwise. An interface
// is attached anew only when nothing of an earlier attachment to it is left, in a later pass: its counts have to
// be saved first.
//
// Auto goes back from generic to native mode where native was never tried, which is so after the wish was for generic,
// and where what stood in its way has visibly changed. The kernel has room for one mode, so it means to detach: it is
// not done for a guess.
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
		if !ok || !h.Live(byIndex[h.Index]) || !h.meets(w.Mode, byIndex[h.Index].Hook.Mode) || h.ViaDispatcher != w.ViaDispatcher {
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

// Live reports that the attachment counts: the interface carries its program. A dispatcher is exchanged whenever somebody
// joins or leaves, which may be between the look at the attachments and that at the interfaces.
func (a Attachment) Live(i Interface) bool {
	if a.ViaDispatcher {
		return a.Index != 0 && a.Index == i.Index && i.Hook.Program != 0
	}
	return a.Index != 0 && a.Index == i.Index && a.Program != 0 && a.Program == i.Hook.Program
}

// meets reports that the attachment, which is in the attained mode, is what was wished for or as near to it as can be.
func (a Attachment) meets(wish, attained Mode) bool {
	if wish == Auto && attained == Generic && !a.ViaDispatcher { // what a dispatcher got is not ours to say
		return a.Refused != nil && !a.Improved
	}
	return wish == Auto || wish == attained
}
