// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

func TestCompareFeatures(t *testing.T) {
	on := ethtool.FeatureState{Available: true, Requested: true, Active: true}
	off := ethtool.FeatureState{Available: true}
	withheld := ethtool.FeatureState{Available: true, Requested: true} // by the driver, while it is asked for
	fixed := ethtool.FeatureState{Active: true, NeverChanged: true}
	for name, tc := range map[string]struct {
		before, after features
		off, lost     []string
	}{
		"nothing changes":                          {before: features{"a": on, "b": off, "c": withheld, "d": fixed}, after: features{"a": on, "b": off, "c": withheld, "d": fixed}},
		"the kernel gives it back":                 {before: features{"a": on}, after: features{"a": withheld}, off: []string{"a"}},
		"the kernel does not give it back":         {before: features{"a": on}, after: features{"a": off}, off: []string{"a"}, lost: []string{"a"}},
		"sorted":                                   {before: features{"c": on, "a": on, "b": on}, after: features{"c": off, "a": off, "b": withheld}, off: []string{"a", "b", "c"}, lost: []string{"a", "c"}},
		"it was off before":                        {before: features{"a": off, "b": withheld}, after: features{"a": off, "b": off}, lost: []string{"b"}},
		"it is switched on":                        {before: features{"a": off}, after: features{"a": on}},
		"it was on and not asked for":              {before: features{"a": fixed}, after: features{"a": {}}, off: []string{"a"}},
		"features of the interface cannot be read": {after: features{"a": off}},
	} {
		t.Run(name, func(t *testing.T) {
			off, lost := compareFeatures(tc.before, tc.after)
			if !cmp.Equal(off, tc.off) || !cmp.Equal(lost, tc.lost) {
				t.Errorf("off %q, lost %q, want %q, %q", off, lost, tc.off, tc.lost)
			}
		})
	}
}

func TestWhatIsRestored(t *testing.T) {
	off := ethtool.FeatureState{Available: true}
	for name, tc := range map[string]struct {
		lost  []string
		now   features
		noLRO bool
		want  map[string]bool
	}{
		"off and not asked for":     {lost: []string{rxGROHW, rxLRO}, now: features{rxGROHW: off, rxLRO: off}, want: map[string]bool{rxGROHW: true, rxLRO: true}},
		"only what was lost":        {lost: []string{rxGROHW}, now: features{rxGROHW: off, rxLRO: off}, want: map[string]bool{rxGROHW: true}},
		"on again":                  {lost: []string{rxGROHW}, now: features{rxGROHW: {Available: true, Requested: true, Active: true}}, want: map[string]bool{}},
		"withheld by the driver":    {lost: []string{rxGROHW}, now: features{rxGROHW: {Available: true, Requested: true}}, want: map[string]bool{}},
		"fixed":                     {lost: []string{rxGROHW}, now: features{rxGROHW: {}}, want: map[string]bool{}},
		"never changed":             {lost: []string{rxGROHW}, now: features{rxGROHW: {Available: true, NeverChanged: true}}, want: map[string]bool{}},
		"unknown":                   {lost: []string{"rx-of-old"}, now: features{rxGROHW: off}, want: map[string]bool{}},
		"LRO where it is forbidden": {lost: []string{rxGROHW, rxLRO}, now: features{rxGROHW: off, rxLRO: off}, noLRO: true, want: map[string]bool{rxGROHW: true}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := toRestore(tc.lost, tc.now, tc.noLRO); !cmp.Equal(got, tc.want) {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}

// active returns the features of an interface that are on, sorted.
func (h *host) active(t *testing.T, name string) []string {
	t.Helper()
	var on []string
	h.net.Do(func() {
		for feature, active := range h.tool(t, (*ethtool.Ethtool).Features, name) {
			if active {
				on = append(on, feature)
			}
		}
	})
	slices.Sort(on)
	return on
}

func (h *host) tool(t *testing.T, read func(*ethtool.Ethtool, string) (map[string]bool, error), name string) map[string]bool {
	t.Helper()
	tool, err := ethtool.NewEthtool()
	if err != nil {
		t.Fatal(err)
	}
	defer tool.Close()
	found, err := read(tool, name)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// switchFeature is "ethtool -K NAME FEATURE on|off".
func (h *host) switchFeature(t *testing.T, name, feature string, on bool) {
	t.Helper()
	h.net.Do(func() {
		h.tool(t, func(tool *ethtool.Ethtool, name string) (map[string]bool, error) {
			return nil, tool.Change(name, map[string]bool{feature: on})
		}, name)
	})
	if got := slices.Contains(h.active(t, name), feature); got != on {
		t.Fatalf("%s of %s is on: %t, want %t", feature, name, got, on)
	}
}

// missing returns what is in before and not in after.
func missing(before, after []string) []string {
	return slices.DeleteFunc(slices.Clone(before), func(name string) bool { return slices.Contains(after, name) })
}

func (h *host) mustDetach(t *testing.T) {
	t.Helper()
	a := h.onlyAttached(t)
	h.net.Do(func() {
		if err := h.Detach(a); err != nil {
			t.Fatal(err)
		}
	})
}

func TestNativeModeSwitchesSegmentationOffAtThePeer(t *testing.T) {
	h := newHost(t)
	before, own := h.active(t, "peer"), h.active(t, nasty)
	h.mustAttach(t, plan.Native)
	want := []plan.SwitchedOff{{Interface: "peer", Features: missing(before, h.active(t, "peer"))}}
	if !slices.Contains(want[0].Features, "tx-tcp-segmentation") || len(missing(own, h.active(t, nasty))) > 0 {
		t.Errorf("the kernel has switched off %v, and %v", want, missing(own, h.active(t, nasty)))
	}
	if diff := cmp.Diff(want, h.onlyAttached(t).SwitchedOff); diff != "" {
		t.Errorf("after the attach (-want +got):\n%s", diff)
	}
	h.net.Rename(t, "peer", "renamed")
	want[0].Interface = "renamed"
	h.open(t)
	if diff := cmp.Diff(want, h.onlyAttached(t).SwitchedOff); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	h.mustDetach(t)
	if diff := cmp.Diff(before, h.active(t, "renamed")); diff != "" {
		t.Errorf("features of the peer after the detach (-before +after):\n%s", diff)
	}
	if gone := missing(own, h.active(t, nasty)); len(gone) > 0 {
		t.Errorf("off after the detach: %v", gone)
	}
	h.expectNothingPinned(t)
}

// TestGenericModeSwitchesNothingOffOnVeth: nothing is stored then.
func TestGenericModeSwitchesNothingOffOnVeth(t *testing.T) {
	h := newHost(t)
	before := append(h.active(t, nasty), h.active(t, "peer")...)
	h.mustAttach(t, plan.Generic)
	if after := append(h.active(t, nasty), h.active(t, "peer")...); !cmp.Equal(before, after) {
		t.Errorf("features were %v and are %v", before, after)
	}
	if a := h.onlyAttached(t); a.SwitchedOff != nil {
		t.Errorf("switched off: %v", a.SwitchedOff)
	}
	if names := h.pins(t); slices.Contains(names, "features") {
		t.Errorf("pins: %v", names)
	}
}

func TestPeerInAnotherNamespaceIsNotCompared(t *testing.T) {
	h, other := newHost(t), netns.New(t)
	h.net.Do(func() {
		peer, err := netlink.LinkByName("peer")
		if err == nil {
			err = netlink.LinkSetNsFd(peer, int(other.File().Fd()))
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	pair := &netlink.Veth{LinkAttrs: named("v0"), PeerName: "v1"} // v0 has the index that the peer has there
	h.net.Do(func() {
		l, err := netlink.LinkByIndex(h.index)
		if err != nil {
			t.Fatal(err)
		}
		pair.Index = l.Attrs().ParentIndex
	})
	h.add(t, pair)
	h.net.Do(func() {
		if list := affected(h.index); len(list) != 1 || list[0].Attrs().Index != h.index {
			t.Errorf("compared are %v", list)
		}
	})
	h.mustAttach(t, plan.Native)
	if a := h.onlyAttached(t); a.SwitchedOff != nil {
		t.Errorf("switched off: %v", a.SwitchedOff)
	}
}

// lost makes the host's attachment one that has lost the features, as on a driver with hardware GRO. A veth has features that can
// be switched on and off, but none that generic mode switches off.
func (h *host) lost(t *testing.T, names ...string) {
	t.Helper()
	h.net.Do(func() {
		l, err := netlink.LinkByIndex(h.index)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.folder(h.index).saveFeatures([]switchedOff{{Index: h.index, Identity: identityOf(l), Off: names, Lost: names}}); err != nil {
			t.Fatal(err)
		}
	})
	for _, name := range names {
		h.switchFeature(t, nasty, name, false)
	}
}

const (
	lostFeature = "tx-tcp-segmentation"
	userFeature = "tx-sctp-segmentation" // which the user switches off
)

func TestFeaturesAreRestoredAtDetach(t *testing.T) {
	detachLink := func(t *testing.T, h *host) {
		l, err := link.LoadPinnedLink(h.folder(h.index).linkPin(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := l.Detach(); err != nil {
			t.Fatal(err)
		}
	}
	setAddress := func(t *testing.T, h *host) {
		h.net.Do(func() {
			l, err := netlink.LinkByIndex(h.index)
			if err == nil {
				err = netlink.LinkSetHardwareAddr(l, []byte{2, 0, 0, 0, 0, 9})
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	for name, tc := range map[string]struct {
		before  func(*testing.T, *host)
		detach  func(*testing.T, *host)
		restore bool
	}{
		"by the agent":                    {restore: true},
		"by an agent that has restarted":  {before: func(t *testing.T, h *host) { h.open(t) }, restore: true},
		"by cleaning the node":            {detach: func(t *testing.T, h *host) { h.cleanup(t) }, restore: true},
		"the program was detached before": {before: detachLink, restore: true},
		"the interface has another name":  {before: func(t *testing.T, h *host) { h.net.Rename(t, nasty, "new"); h.net.Rename(t, "new", nasty) }, restore: true},
		"another interface has the index": {before: setAddress},
		"another program is on the hook":  {before: func(t *testing.T, h *host) { detachLink(t, h); h.holdByLink(t, h.index, link.XDPGenericMode) }},
		"another program is above": {before: func(t *testing.T, h *host) {
			above, _ := h.add(t, &netlink.Macvlan{LinkAttrs: on(h.index, "above"), Mode: netlink.MACVLAN_MODE_BRIDGE})
			h.holdByLink(t, above, link.XDPGenericMode)
		}},
		"somebody has switched it on":      {before: func(t *testing.T, h *host) { h.switchFeature(t, nasty, lostFeature, true) }, restore: true},
		"the record is of another version": {before: func(t *testing.T, h *host) { replaceRecord(t, h, "[") }},
		"there is no record":               {before: func(t *testing.T, h *host) { replaceRecord(t, h, "") }},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.mustAttach(t, plan.Generic)
			h.lost(t, lostFeature)
			h.switchFeature(t, nasty, userFeature, false)
			if tc.before != nil {
				tc.before(t, h)
			}
			if tc.detach != nil {
				tc.detach(t, h)
			} else {
				h.mustDetach(t)
			}
			on := h.active(t, nasty)
			if got := slices.Contains(on, lostFeature); got != tc.restore {
				t.Errorf("%s is on: %t, want %t", lostFeature, got, tc.restore)
			}
			if slices.Contains(on, userFeature) {
				t.Errorf("%s is on, which the user has switched off", userFeature)
			}
			h.expectNothingPinned(t)
		})
	}
}

// An attach that is killed leaves the record that was made before it, and counts without a link, or nothing else.
func TestFeaturesAreRestoredAfterAnAttachThatWasKilled(t *testing.T) {
	for _, pins := range [][]string{{"counts", "features"}, {"features"}} {
		t.Run(strings.Join(pins, " and "), func(t *testing.T) {
			h := newHost(t)
			h.mustAttach(t, plan.Generic)
			h.lost(t, lostFeature)
			for _, name := range h.pins(t) {
				if slices.Contains(pins, name) {
					continue
				}
				if err := os.Remove(h.folder(h.index).path + "/" + name); err != nil {
					t.Fatal(err)
				}
			}
			h.waitUnhooked(t, nil)
			h.open(t)
			for _, a := range h.attached(t) { // which removes folders without counts
				h.net.Do(func() {
					if err := h.Detach(a); err != nil {
						t.Fatal(err)
					}
				})
			}
			if !slices.Contains(h.active(t, nasty), lostFeature) {
				t.Errorf("%s is off", lostFeature)
			}
			if _, err := os.Stat(h.folder(h.index).path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the folder of the pins: %v", err)
			}
		})
	}
}

func replaceRecord(t *testing.T, h *host, text string) {
	t.Helper()
	pin := h.folder(h.index).featuresPin()
	if err := os.Remove(pin); err != nil {
		t.Fatal(err)
	}
	if text != "" {
		if err := os.Symlink(text, pin); err != nil {
			t.Fatal(err)
		}
	}
}

// The program is detached, and an error of restoring is returned once.
func TestFeaturesThatCannotBeRestoredDoNotKeepTheProgram(t *testing.T) {
	h := newHost(t)
	h.mustAttach(t, plan.Generic)
	h.lost(t, lostFeature)
	a := h.onlyAttached(t)
	h.withCapabilities(t, []int{unix.CAP_BPF, unix.CAP_PERFMON}, func() {
		err := h.Detach(a)
		if err == nil || !strings.Contains(err.Error(), "switch "+lostFeature+" of "+nasty+" on again") {
			t.Errorf("detach without the right to set features: %v", err)
		}
		if err := h.Detach(a); err != nil {
			t.Errorf("detach again: %v", err)
		}
	})
	h.expectUnhooked(t)
	h.expectNothingPinned(t)
}

func TestUnpinnedRestoresFeatures(t *testing.T) {
	h, u := newHost(t), newUnpinned(t)
	before := h.active(t, "peer")
	if err := h.hold(u, h.index, plan.Native); err != nil {
		t.Fatal(err)
	}
	if len(u.held[0].off) != 1 || !cmp.Equal(u.held[0].off[0].Off, missing(before, h.active(t, "peer"))) {
		t.Errorf("switched off: %+v", u.held[0].off)
	}
	h.net.Do(func() {
		l, err := netlink.LinkByIndex(h.index)
		if err != nil {
			t.Fatal(err)
		}
		u.held[0].off = append(u.held[0].off, switchedOff{Index: h.index, Identity: identityOf(l), Lost: []string{lostFeature}})
	})
	h.switchFeature(t, nasty, lostFeature, false)
	detach := func() {
		h.net.Do(func() {
			if err := u.Detach(); err != nil {
				t.Fatal(err)
			}
		})
	}
	detach()
	if !slices.Contains(h.active(t, nasty), lostFeature) || !cmp.Equal(h.active(t, "peer"), before) {
		t.Errorf("after the detach %v are on, and of the peer %v", h.active(t, nasty), h.active(t, "peer"))
	}
	h.switchFeature(t, nasty, lostFeature, false)
	if detach(); slices.Contains(h.active(t, nasty), lostFeature) {
		t.Error("a second detach has switched on what the user has switched off")
	}
}

func TestSwitchOff(t *testing.T) {
	h := newHost(t)
	before := h.active(t, nasty)
	for _, want := range []bool{true, false} { // the second time there is nothing to do
		h.net.Do(func() {
			if got := switchOff(h.index, []string{rxLRO, userFeature}); got != want {
				t.Errorf("switched off: %t, want %t", got, want)
			}
		})
	}
	if off := missing(before, h.active(t, nasty)); !cmp.Equal(off, []string{userFeature}) {
		t.Errorf("off: %v", off)
	}
	h.net.Do(func() {
		if switchOff(h.index, []string{rxLRO}) {
			t.Error("a feature that cannot be changed is switched off")
		}
		if switchOff(4711, []string{userFeature}) {
			t.Error("of an interface that does not exist")
		}
	})
}

// An offload for which native mode was refused is off in generic mode. That is no reason to try native mode again: when generic
// mode is left, the offload is restored, and native mode is refused again.
func TestAnOffloadThatTheAttachSwitchedOffIsNoImprovement(t *testing.T) {
	for name, test := range map[string]struct {
		list []switchedOff
		want []string
	}{
		"nothing is stored":              {nil, []string{rxGROHW, rxLRO}},
		"one is switched off":            {[]switchedOff{{Index: 2, Lost: []string{rxLRO}}}, []string{rxGROHW}},
		"one that the kernel gives back": {[]switchedOff{{Index: 2, Off: []string{rxLRO}}}, []string{rxGROHW, rxLRO}},
		"at an interface below":          {[]switchedOff{{Index: 3, Lost: []string{rxLRO}}}, []string{rxGROHW, rxLRO}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := notLost([]string{rxGROHW, rxLRO}, test.list, 2); !cmp.Equal(got, test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
	h := newHost(t)
	h.mustAttach(t, plan.Generic)
	f := h.folder(h.index)
	if err := f.saveFallbackReason(plan.ErrOffloadConflict, deviceFacts{Offloads: []string{rxLRO}}); err != nil {
		t.Fatal(err)
	}
	if a := h.onlyAttached(t); !a.Improved {
		t.Error("an offload that somebody has switched off is no improvement")
	}
	if err := f.saveFeatures([]switchedOff{{Index: h.index, Lost: []string{rxLRO}}}); err != nil {
		t.Fatal(err)
	}
	if a := h.onlyAttached(t); a.Improved {
		t.Error("an offload that the attach has switched off is an improvement")
	}
}

// The kernel switches LRO off where packets are forwarded or bridged, and would not do so again.
func TestLROIsNotRestoredWhereTheKernelForbidsIt(t *testing.T) {
	forwarding := func(family string) func(*testing.T, *host) {
		return func(t *testing.T, h *host) {
			h.net.Do(func() {
				if err := os.WriteFile("/proc/sys/net/"+family+"/conf/"+nasty+"/forwarding", []byte("1"), 0); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
	for name, test := range map[string]struct {
		change func(*testing.T, *host)
		want   bool
	}{
		"an interface of a host": {func(*testing.T, *host) {}, false},
		"IPv4 is forwarded":      {forwarding("ipv4"), true},
		"IPv6 is forwarded":      {forwarding("ipv6"), true},
		"a port of a bridge":     {func(t *testing.T, h *host) { h.enslave(t, h.index, h.net.Bridge(t, "br0")) }, true},
		"a member of a bond": {func(t *testing.T, h *host) {
			if bond, ok := h.bond(t, netlink.BOND_MODE_ACTIVE_BACKUP); ok {
				h.enslave(t, h.index, bond)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			test.change(t, h)
			h.net.Do(func() {
				all, err := netlink.LinkList()
				if err != nil {
					t.Fatal(err)
				}
				at := slices.IndexFunc(all, func(l netlink.Link) bool { return l.Attrs().Index == h.index })
				if got := forbidsLRO(all[at], all); got != test.want {
					t.Errorf("LRO is forbidden: %t, want %t", got, test.want)
				}
			})
		})
	}
}

// TestFeaturesFormat: the record is in the pins of running systems, so its format must not change.
func TestFeaturesFormat(t *testing.T) {
	const stored = `[{"index":2,"identity":"device 02:00:00:00:00:01","off":["rx-gro-hw","rx-lro"],"lost":["rx-gro-hw"]}]`
	f := folder{path: t.TempDir()}
	list := []switchedOff{{Index: 2, Identity: "device 02:00:00:00:00:01", Off: []string{rxGROHW, rxLRO}, Lost: []string{rxGROHW}}}
	for range 2 { // the second replaces the first
		if err := f.saveFeatures(list); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.Readlink(f.path + "/features"); err != nil || text != stored {
		t.Errorf("%s, %v, want %s", text, err, stored)
	}
	if diff := cmp.Diff(list, f.loadFeatures()); diff != "" {
		t.Errorf("(-stored +loaded):\n%s", diff)
	}
	if err := f.saveFeatures(nil); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(f.path); err != nil || len(left) != 0 {
		t.Errorf("left: %v, error %v", left, err)
	}
}

// A symbolic link has at most 4,095 bytes. What is to be restored is kept then.
func TestFeaturesOfManyInterfaces(t *testing.T) {
	h := newHost(t)
	f := h.folder(h.index)
	if err := os.MkdirAll(f.path, 0o700); err != nil {
		t.Fatal(err)
	}
	var list []switchedOff
	for i := range maxAffected {
		s := switchedOff{Index: 1000000 + i, Identity: "openvswitch 02:00:00:00:00:01", Lost: []string{rxGROHW, rxLRO}}
		for n := range 60 {
			s.Off = append(s.Off, "tx-some-long-name-of-a-feature-"+strconv.Itoa(n))
		}
		list = append(list, s)
	}
	if err := f.saveFeatures(list); err != nil {
		t.Fatal(err)
	}
	for i := range list {
		list[i].Off = nil
	}
	if diff := cmp.Diff(list, f.loadFeatures()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	h.cleanup(t)
}

// Generic mode on a macvlan also switches LRO of the bond below off. The last of two macvlans to be detached restores it. (Where a
// VLAN is above, the kernel keeps LRO off anyway.)
func TestGenericModeSwitchesLROOffBelow(t *testing.T) {
	h := newHost(t)
	bond, ok := h.bond(t, netlink.BOND_MODE_ACTIVE_BACKUP)
	if !ok {
		return
	}
	first, _ := h.add(t, &netlink.Macvlan{LinkAttrs: on(bond, "mac1"), Mode: netlink.MACVLAN_MODE_BRIDGE})
	second, _ := h.add(t, &netlink.Macvlan{LinkAttrs: on(bond, "mac2"), Mode: netlink.MACVLAN_MODE_BRIDGE})
	h.switchFeature(t, "bond0", rxLRO, true)
	before := h.active(t, "bond0")
	for _, index := range []int{first, second} {
		if err := h.attach(index, plan.Generic); err != nil {
			t.Fatal(err)
		}
	}
	attached := h.attached(t)
	for _, a := range attached {
		off := []plan.SwitchedOff{{Interface: "bond0", Features: []string{rxLRO}}}
		if got := slices.DeleteFunc(slices.Clone(a.SwitchedOff), func(s plan.SwitchedOff) bool { return strings.HasPrefix(s.Interface, "mac") }); !cmp.Equal(off, got) {
			diff := cmp.Diff(off, got)
			t.Errorf("interface %d (-want +got):\n%s", a.Index, diff)
		}
	}
	for i, a := range attached {
		h.net.Do(func() {
			if err := h.Detach(a); err != nil {
				t.Fatal(err)
			}
		})
		if got := slices.Contains(h.active(t, "bond0"), rxLRO); got != (i == 1) {
			t.Errorf("after %d detached: LRO is on: %t", i+1, got)
		}
	}
	if diff := cmp.Diff(before, h.active(t, "bond0")); diff != "" {
		t.Errorf("features of the bond (-before +after):\n%s", diff)
	}
}

// aggregatingCard is the network card of the emulator to which the host hands over large segments.
const aggregatingCard = "eth1"

// card moves the emulator's card into the host's network namespace until the end of the test, and returns its index.
func (h *host) card(t *testing.T) int {
	t.Helper()
	l, err := netlink.LinkByName(aggregatingCard)
	if err == nil {
		err = netlink.LinkSetNsFd(l, int(h.net.File().Fd()))
	}
	if err != nil {
		t.Fatalf("%s of the emulator: %v", aggregatingCard, err)
	}
	t.Cleanup(func() { // the kernel moves it back too, but some time after the end of the namespace
		h.net.Do(func() {
			l, err := netlink.LinkByName(aggregatingCard) // its index may have been that of another interface here
			if err == nil {
				err = netlink.LinkSetNsPid(l, 1)
			}
			if err != nil {
				t.Error(err)
			}
		})
	})
	return h.net.Up(t, aggregatingCard)
}

// virtio_net has hardware GRO (LRO in older kernels), which generic mode switches off for good.
func TestVirtioNetHasItsFeaturesBack(t *testing.T) {
	if os.Getenv(report.Guest) == "" {
		t.Logf("%s is a card of the emulator: make test-kernels", aggregatingCard)
		return
	}
	for _, mode := range []plan.Mode{plan.Generic, plan.Native} {
		t.Run(string(mode), func(t *testing.T) {
			h := newHost(t)
			index := h.card(t)
			before := h.active(t, aggregatingCard)
			if !slices.Contains(before, rxGROHW) && !slices.Contains(before, rxLRO) {
				t.Fatalf("the card has neither %s nor %s: %v", rxGROHW, rxLRO, before)
			}
			err := h.attach(index, mode)
			if mode == plan.Native && (errors.Is(err, plan.ErrNotEnoughQueues) || errors.Is(err, plan.ErrOutOfMemory)) {
				t.Logf("the driver of this kernel wants more queues: %v", err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			off := missing(before, h.active(t, aggregatingCard))
			t.Logf("%s mode switches off %v", mode, off)
			if len(off) > 0 != (mode == plan.Generic) {
				t.Errorf("%s mode has switched off %v", mode, off)
			}
			if mode == plan.Native { // the driver does not say so: see hiddenFeatures
				off = missing(lostInGenericMode, missing(lostInGenericMode, before))
			}
			var got []string
			for _, s := range h.onlyAttached(t).SwitchedOff {
				got = append(got, s.Features...)
			}
			if !cmp.Equal(got, off) {
				t.Errorf("reported: %v, want %v", got, off)
			}
			h.open(t)
			if diff := cmp.Diff([]plan.SwitchedOff{{Interface: aggregatingCard, Features: off}}, h.onlyAttached(t).SwitchedOff); diff != "" {
				t.Errorf("after a restart (-want +got):\n%s", diff)
			}
			h.mustDetach(t)
			if diff := cmp.Diff(before, h.active(t, aggregatingCard)); diff != "" {
				t.Errorf("features after the detach (-before +after):\n%s", diff)
			}
		})
	}
	t.Run("with a shared hook", func(t *testing.T) {
		h := newHost(t)
		index := h.card(t)
		before := h.active(t, aggregatingCard)
		h.net.Do(func() {
			if err := h.Attach(plan.Attachment{Index: index, Name: aggregatingCard, Mode: plan.Generic, ViaDispatcher: true}); err != nil {
				t.Fatal(err)
			}
		})
		want := []plan.SwitchedOff{{Interface: aggregatingCard, Features: missing(before, h.active(t, aggregatingCard))}}
		if diff := cmp.Diff(want, h.onlyAttached(t).SwitchedOff); diff != "" || len(want[0].Features) == 0 {
			t.Errorf("switched off (-want +got):\n%s", diff)
		}
		h.mustDetach(t)
		if diff := cmp.Diff(before, h.active(t, aggregatingCard)); diff != "" {
			t.Errorf("features after the detach (-before +after):\n%s", diff)
		}
		h.expectNothingShared(t)
	})
	t.Run("by xdpcount", func(t *testing.T) {
		h, u := newHost(t), newUnpinned(t)
		index := h.card(t)
		before := h.active(t, aggregatingCard)
		if err := h.hold(u, index, plan.Generic); err != nil {
			t.Fatal(err)
		}
		if off := missing(before, h.active(t, aggregatingCard)); len(off) == 0 {
			t.Error("nothing is switched off")
		}
		h.net.Do(func() {
			if err := u.Detach(); err != nil {
				t.Error(err)
			}
		})
		if diff := cmp.Diff(before, h.active(t, aggregatingCard)); diff != "" {
			t.Errorf("features after the detach (-before +after):\n%s", diff)
		}
	})
}
