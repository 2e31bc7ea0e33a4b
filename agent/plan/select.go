package plan

import (
	"path"
	"slices"
	"strings"
)

// Selection is what one counter asks of this node.
type Selection struct {
	Counter string   // the counter's UID
	Primary bool     // the interfaces of the default route
	Names   []string // globs as path.Match takes them, and [!...] as a shell does
	Exclude []string // globs, which win
	Mode    Mode
	Shared  bool // the hook may be shared, by a dispatcher
}

// podEnds are the first letters of interfaces that container networks make for each pod: their packets belong
// to the pod and pass the node's own interfaces as well. A glob matches them only if it begins so itself.
// From the default names of the CNI plugins bridge and ptp (veth), Calico (cali), Cilium (lxc), the AWS VPC CNI
// (eni), GKE (gke), Azure (azv) and the bridge plugin's bridge (cni).
var podEnds = []string{"azv", "cali", "cni", "eni", "gke", "lxc", "veth"}

// Matches reports whether the counter selects the interface.
func (s Selection) Matches(i Interface) bool {
	named := func(pattern string) bool { return glob(pattern, i.Name) }
	if slices.ContainsFunc(s.Exclude, named) {
		return false
	}
	return s.Primary && i.Primary || slices.ContainsFunc(s.Names, func(pattern string) bool {
		return named(pattern) && !tooBroad(pattern, i.Name)
	})
}

// tooBroad reports that the pattern matches the name only because it is wide: the loopback interface has to be
// named in full, a pod's end by the letters that tell what it is.
func tooBroad(pattern, name string) bool {
	if name == "lo" {
		return pattern != "lo"
	}
	literal := pattern
	if meta := strings.IndexAny(pattern, `*?[\`); meta >= 0 {
		literal = pattern[:meta]
	}
	for _, prefix := range podEnds {
		if strings.HasPrefix(name, prefix) && !strings.HasPrefix(literal, prefix) {
			return true
		}
	}
	return false
}

// glob matches like a shell. A malformed pattern matches nothing; the API refuses it at admission.
func glob(pattern, name string) bool {
	ok, err := path.Match(strings.ReplaceAll(pattern, "[!", "[^"), name)
	return ok && err == nil
}

// Conflict is a wish that cannot be met because an older one says otherwise.
type Conflict struct {
	Index   int    // the interface
	Counter string // the UID of the counter that is not counted there
	Wants   Mode   // what it asked for
	Has     Mode   // what the older counter asked for
}

// Desired returns what shall be attached, one attachment per interface sorted by index, and for whom: the
// counters of each interface by its index, in the order of the selections.
//
// Selections are in order of age. Where two want different modes on one interface the older wins, and the other
// is in conflict and not counted there. A counter that asks for Auto agrees with any mode, and one that asks for
// Native agrees with an older one's Auto. Whether the hook is shared is for the oldest to say, and no conflict.
func Desired(selections []Selection, interfaces []Interface) (want []Attachment, selected map[int][]string, conflicts []Conflict) {
	selected = map[int][]string{}
	for _, i := range interfaces {
		a := Attachment{Index: i.Index, Name: i.Name}
		for _, s := range selections {
			switch {
			case !s.Matches(i):
				continue
			case a.Mode == "":
				a.Mode, a.Shared = s.Mode, s.Shared
			case s.Mode != a.Mode && s.Mode != Auto && (a.Mode != Auto || s.Mode != Native):
				conflicts = append(conflicts, Conflict{Index: i.Index, Counter: s.Counter, Wants: s.Mode, Has: a.Mode})
				continue
			}
			selected[i.Index] = append(selected[i.Index], s.Counter)
		}
		if a.Mode != "" {
			want = append(want, a)
		}
	}
	slices.SortFunc(want, func(a, b Attachment) int { return a.Index - b.Index })
	return want, selected, conflicts
}
