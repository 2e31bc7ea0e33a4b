package plan

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// Selection is what one counter asks of this node.
type Selection struct {
	Counter       string   // the counter's UID
	Primary       bool     // the interfaces of the default route
	Names         []string // globs as path.Match takes them, and [!...] as a shell does
	Exclude       []string // globs, which win
	Mode          Mode
	ViaDispatcher bool // the hook may be shared, by a dispatcher
}

// podEnds are the first letters of interfaces that container networks make for pods or for themselves: their packets
// belong to pods, and pass the node's own interfaces as well. A glob matches them only if it begins so itself.
// From the default names of the AWS VPC CNI (eni), Azure (azv), Calico (cali), Cilium (lxc, cilium_), the CNI plugins
// bridge and ptp (cni, veth), Docker (docker), Flannel (flannel), GKE (gke), kube-proxy (kube-ipvs), kube-router
// (kube-bridge), the node-local DNS cache (nodelocaldns) and OVN-Kubernetes (ovn-).
var podEnds = []string{
	"azv", "cali", "cilium_", "cni", "docker", "eni", "flannel", "gke", "kube-bridge", "kube-ipvs", "lxc", "nodelocaldns", "ovn-", "veth",
}

// tunnels are the kinds of interfaces whose frames come in the packets of another one, which is often not known.
var tunnels = []string{"bareudp", "erspan", "geneve", "gretap", "ip6erspan", "ip6gretap", "vxlan"}

// Matches reports whether the counter selects the interface.
func (s Selection) Matches(i Interface) bool {
	named := func(pattern string) bool { return glob(pattern, i.Name) || slices.Contains(i.AltNames, pattern) }
	if slices.ContainsFunc(s.Exclude, named) {
		return false
	}
	return s.Primary && i.Primary || slices.ContainsFunc(s.Names, func(pattern string) bool {
		return named(pattern) && !tooBroad(pattern, i)
	})
}

// tooBroad reports that the pattern matches the name only because it is wide: the loopback interface has to be
// named in full, a pod's end by the letters that tell what it is, or by some letter if only its kind tells, and so a
// tunnel. An alternative name is always one in full.
func tooBroad(pattern string, i Interface) bool {
	literal := pattern
	if meta := strings.IndexAny(pattern, `*?[\`); meta >= 0 {
		literal = pattern[:meta]
	}
	switch {
	case i.Name == "lo":
		return literal != pattern
	case literal == pattern:
		return false
	case literal == "" && (i.NoEthernet || slices.Contains(tunnels, i.Kind)):
		return true
	case i.Primary: // whatever it looks like, it is the node's own
		return false
	case literal == "" && i.PeerAway:
		return true
	}
	return slices.ContainsFunc(podEnds, func(prefix string) bool {
		return strings.HasPrefix(i.Name, prefix) && !strings.HasPrefix(literal, prefix)
	})
}

// glob matches like a shell. A malformed pattern matches nothing; the API refuses it at admission.
func glob(pattern, name string) bool {
	ok, err := path.Match(strings.ReplaceAll(pattern, "[!", "[^"), name)
	return ok && err == nil
}

// Rejected is an interface that a counter selects and that is not counted for it.
type Rejected struct {
	Index   int      // the interface
	Counter string   // the counter's UID
	Wants   Mode     // what it asked for
	Why     error    // ErrModeConflict, ErrCountedElsewhere or ErrNoEthernet
	Has     Mode     // what the older counter asked for or, if that was Auto, has got: with ErrModeConflict
	At      []string // the names of the interfaces at which its frames are counted for the counter: with ErrCountedElsewhere
}

// Desired returns what shall be attached, one attachment per interface; for whom: the counters of each interface by
// its index, in the order of the selections; and what is selected and yet not counted, by index.
//
// Selections are in order of age. Where two want different modes on one interface the older wins, and the other is
// rejected there. A counter that asks for Auto agrees with any mode. What an older one's Auto has is what it has got, as
// those of have tell that are live; until then it is taken for native. Whether the hook is shared is for the oldest to
// say, and no conflict.
//
// Of interfaces that are stacked on one another each counter has its frames counted at one: see layers. What shall be
// attached is in the order in which the kernel takes it: it refuses a program below an interface that has one.
func Desired(selections []Selection, interfaces []Interface, have []Attachment) (want []Attachment, selected map[int][]string, rejected []Rejected) {
	stack := stackOf(interfaces)
	wishes := map[int][]Selection{} // by index
	for _, s := range selections {
		var matched []Interface
		for _, i := range interfaces {
			switch {
			case !s.Matches(i):
			case i.NoEthernet:
				rejected = append(rejected, Rejected{Index: i.Index, Counter: s.Counter, Wants: s.Mode, Why: ErrNoEthernet})
			default:
				matched = append(matched, i)
			}
		}
		elsewhere := stack.layers(matched)
		for _, i := range matched {
			if at := elsewhere[i.Index]; at != nil {
				rejected = append(rejected, Rejected{Index: i.Index, Counter: s.Counter, Wants: s.Mode, Why: ErrCountedElsewhere, At: at})
				continue
			}
			wishes[i.Index] = append(wishes[i.Index], s)
		}
	}
	selected = map[int][]string{}
	for _, i := range interfaces {
		if len(wishes[i.Index]) == 0 {
			continue
		}
		mode := wishes[i.Index][0].Mode
		has := mode
		if live := slices.ContainsFunc(have, func(h Attachment) bool { return h.Live(i) }); live && mode == Auto && i.Hook.Mode != "" {
			has = i.Hook.Mode
		}
		for _, s := range wishes[i.Index] {
			if s.Mode == Auto || s.Mode == has || s.Mode == Native && has == Auto {
				selected[i.Index] = append(selected[i.Index], s.Counter)
			} else {
				rejected = append(rejected, Rejected{Index: i.Index, Counter: s.Counter, Wants: s.Mode, Why: ErrModeConflict, Has: has})
			}
		}
		want = append(want, Attachment{Index: i.Index, Name: i.Name, Mode: mode, ViaDispatcher: wishes[i.Index][0].ViaDispatcher})
	}
	slices.SortFunc(want, func(a, b Attachment) int {
		return cmp.Or(cmp.Compare(stack.height(a.Index), stack.height(b.Index)), cmp.Compare(a.Index, b.Index))
	})
	slices.SortStableFunc(rejected, func(a, b Rejected) int { return cmp.Compare(a.Index, b.Index) })
	return want, selected, rejected
}
