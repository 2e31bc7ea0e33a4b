// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// Selection is the selection of interfaces by one counter.
type Selection struct {
	Counter       string   // the counter's UID
	Primary       bool     // the interfaces of the default route
	Names         []string // globs as path.Match takes them, and [!...] as a shell does
	Exclude       []string // globs; they override Primary and Names
	Mode          Mode
	ViaDispatcher bool // a dispatcher is to call the program
}

// podEnds are the prefixes of interfaces that container networks and hosts of virtual machines create for pods, for machines or
// for themselves. Their packets also pass the node's own interfaces. A glob matches them only if it begins with the prefix.
// They are from the default names of Antrea (antrea-), the AWS VPC CNI (eni), Azure (azv), BuildKit (buildkit), Calico (cali),
// Cilium (lxc, cilium_), the CNI plugins bridge and ptp (cni, veth), Docker (docker), Flannel (flannel), GKE (gke), Incus
// (incusbr), kube-proxy (kube-ipvs), kube-router (kube-bridge, kube-dummy-if), kubenet (cbr0), libvirt (virbr), LXC (lxc), LXD
// (lxdbr), nerdctl (nerdctl), the node-local DNS cache (nodelocaldns), OVN-Kubernetes (ovn-), Podman (podman) and Weave (weave).
// See also userBridge.
var podEnds = []string{
	"antrea-", "azv", "buildkit", "cali", "cbr0", "cilium_", "cni", "docker", "eni", "flannel", "gke", "incusbr", "kube-bridge",
	"kube-dummy-if", "kube-ipvs", "lxc", "lxdbr", "nerdctl", "nodelocaldns", "ovn-", "podman", "veth", "virbr", "weave",
}

// userBridge is the prefix of the bridges of networks that users of Docker and nerdctl create. The first 12 digits of the
// network's ID follow, in hexadecimal. Other bridges have the same prefix, for example br-ex and br-lan.
const userBridge = "br-"

// isUserBridge reports whether it is the name of such a bridge.
func isUserBridge(name string) bool {
	id, ok := strings.CutPrefix(name, userBridge)
	return ok && len(id) == 12 && strings.Trim(id, "0123456789abcdef") == ""
}

// tunnels are the kinds of interfaces whose frames are received inside packets of another interface, which is often unknown.
var tunnels = []string{"bareudp", "erspan", "geneve", "gretap", "ip6erspan", "ip6gretap", "vxlan"}

// UsesPrimary reports whether the field Primary of an interface can decide if the counter selects it. It can also do so without
// s.Primary: a glob matches a primary interface whatever its name. If no selection uses it, the routes need not be read.
func (s Selection) UsesPrimary() bool { return s.Primary || slices.ContainsFunc(s.Names, hasWildcard) }

// HasName reports whether it is the name of the interface, or one of its alternative names.
func (i Interface) HasName(name string) bool {
	return name == i.Name || slices.Contains(i.AltNames, name)
}

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

// tooBroad reports whether the pattern matches the interface but is not specific enough for it. The loopback interface needs its
// full name. A pod's interface needs the prefix of its name, or at least one letter if only its kind shows what it is, as
// does a tunnel. An alternative name is always a full name.
func tooBroad(pattern string, i Interface) bool {
	literal := literalPrefix(pattern)
	switch {
	case i.Name == "lo":
		return literal != pattern
	case literal == pattern:
		return false
	case literal == "" && (i.NoEthernet || slices.Contains(tunnels, i.Kind)):
		return true
	case i.Primary: // it belongs to the node, whatever its name
		return false
	case literal == "" && i.PeerAway:
		return true
	}
	if isUserBridge(i.Name) && !strings.HasPrefix(literal, userBridge) {
		return true
	}
	return slices.ContainsFunc(podEnds, func(prefix string) bool {
		return strings.HasPrefix(i.Name, prefix) && !strings.HasPrefix(literal, prefix)
	})
}

// literalPrefix returns the part of the pattern before its first wildcard.
func literalPrefix(pattern string) string {
	if meta := strings.IndexAny(pattern, `*?[\`); meta >= 0 {
		return pattern[:meta]
	}
	return pattern
}

func hasWildcard(pattern string) bool { return literalPrefix(pattern) != pattern }

// glob matches as a shell does. An invalid pattern matches nothing; the API server rejects it at admission.
func glob(pattern, name string) bool {
	ok, err := path.Match(strings.ReplaceAll(pattern, "[!", "[^"), name)
	return ok && err == nil
}

// Rejected is an interface that a counter selects, and that is not counted for this counter.
type Rejected struct {
	Index   int      // the interface
	Counter string   // the counter's UID
	Wants   Mode     // the mode that it asks for
	Why     error    // ErrModeConflict, ErrCountedElsewhere, ErrNoMembers or ErrNoEthernet
	Has     Mode     // the mode of the older counter, the attained one if it asks for Auto; only with ErrModeConflict
	At      []string // the names of the interfaces at which its frames are counted for the counter; only with ErrCountedElsewhere
}

// Desired returns the wanted attachments, one per interface; the counters of each interface by its index, in the order of the
// selections; and the interfaces that are selected but not counted, sorted by index. have are the present attachments.
//
// The selections are sorted by age, the oldest first. If two counters ask for different modes on one interface, the older one
// decides and the younger one is rejected there. A counter that asks for Auto agrees with any mode. If the older one asks for
// Auto, its mode is the attained one of the live attachment in have; without one it is the first that Auto tries. The oldest counter decides
// whether a dispatcher is used; this is no conflict.
//
// If selected interfaces are layers of one another, each counter counts one layer, and a bond is counted at its members: see layers. The wanted attachments are in
// the order in which the kernel accepts them: it refuses a program below an interface that has one.
func Desired(selections []Selection, interfaces []Interface, have []Attachment) (want []Attachment, selected map[int][]string, rejected []Rejected) {
	stack := stackOf(interfaces)
	onHook := func(i Interface) owner { return ownerOf(i, have) }
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
		at := stack.layers(matched, onHook)
		for _, i := range matched {
			switch names := at.elsewhere[i.Index]; {
			case names != nil:
				rejected = append(rejected, Rejected{Index: i.Index, Counter: s.Counter, Wants: s.Mode, Why: ErrCountedElsewhere, At: names})
			case at.empty[i.Index]:
				rejected = append(rejected, Rejected{Index: i.Index, Counter: s.Counter, Wants: s.Mode, Why: ErrNoMembers})
			}
		}
		for _, i := range at.counted {
			wishes[i.Index] = append(wishes[i.Index], s)
		}
	}
	live := map[int]bool{} // by index: its interface has its program
	for _, h := range have {
		live[h.Index] = live[h.Index] || h.Live(stack.byIndex[h.Index])
	}
	selected = map[int][]string{}
	for _, i := range interfaces {
		if len(wishes[i.Index]) == 0 {
			continue
		}
		oldest := wishes[i.Index][0]
		mode, first := oldest.Mode, Mode("")
		if mode == Auto && !oldest.ViaDispatcher { // a dispatcher calls programs for native mode
			first = FirstOf(i)
		}
		has := mode
		if live[i.Index] && mode == Auto && i.Hook.Mode != "" {
			has = i.Hook.Mode
		}
		for _, s := range wishes[i.Index] {
			if s.Mode == Auto || s.Mode == has || has == Auto && s.Mode == cmp.Or(first, Native) {
				selected[i.Index] = append(selected[i.Index], s.Counter)
			} else {
				rejected = append(rejected, Rejected{Index: i.Index, Counter: s.Counter, Wants: s.Mode, Why: ErrModeConflict, Has: has})
			}
		}
		want = append(want, Attachment{Index: i.Index, Name: i.Name, Mode: mode, First: first, ViaDispatcher: oldest.ViaDispatcher})
	}
	slices.SortFunc(want, func(a, b Attachment) int {
		return cmp.Or(cmp.Compare(stack.height(a.Index), stack.height(b.Index)), cmp.Compare(a.Index, b.Index))
	})
	slices.SortStableFunc(rejected, func(a, b Rejected) int { return cmp.Compare(a.Index, b.Index) })
	return want, selected, rejected
}
