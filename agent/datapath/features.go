// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/agent/xdp"
)

// The kernel and the drivers switch features of an interface off while an XDP program is attached, such as segmentation offloads
// of a veth's peer in native mode. Native mode switches them on again when it ends. Generic mode does not: dev_disable_lro and
// dev_disable_gro_hw of net/core/dev.c remove the features also from those that the user has asked for. So what an attach has
// switched off is stored beside the pins, and the process that detaches restores what the kernel does not.

// features has the features of an interface by their names, as "ethtool -k" lists them.
type features map[string]ethtool.FeatureState

// compareFeatures returns the names of the features that were on before an attach and are off after it, sorted. lost are those
// that were asked for before and are not any more: the kernel does not switch them on again after a detach. What was asked for
// need not have been on.
func compareFeatures(before, after features) (off, lost []string) {
	for _, name := range slices.Sorted(maps.Keys(before)) {
		then, now := before[name], after[name]
		if then.Active && !now.Active {
			off = append(off, name)
		}
		if then.Requested && !now.Requested {
			lost = append(lost, name)
		}
	}
	return off, lost
}

const (
	rxLRO   = "rx-lro"
	rxGROHW = "rx-gro-hw"
)

// lostInGenericMode are the features that the kernel does not switch on again. They are stored before an attach, so that they can
// be restored if the process is killed before it has compared.
var lostInGenericMode = []string{rxGROHW, rxLRO}

// switchedOff is what an attach has switched off on one interface: on that of the program, on its peer if it is a veth, or on an
// interface below, whose LRO generic mode switches off too. The names of the fields are in the pins of running systems.
type switchedOff struct {
	Index    int      `json:"index"`
	Identity string   `json:"identity"`         // of identityOf
	Off      []string `json:"off,omitempty"`    // sorted
	Lost     []string `json:"lost,omitempty"`   // those that are to be restored, sorted; see compareFeatures
	Hidden   []string `json:"hidden,omitempty"` // those that the kernel lists as on: see hiddenFeatures
}

// hiddenFeatures are features that a driver switches off in the device in native mode, and that the kernel goes on to list as on.
// virtio_net clears all receive offloads (virtnet_clear_guest_offloads of drivers/net/virtio_net.c, at the first program), and
// restores them at the detach. In older kernels it has LRO instead of hardware GRO.
var hiddenFeatures = map[string][]string{"virtio_net": {rxGROHW, rxLRO}}

// hidden returns the hidden features of an interface that were on before, if a program is attached to it in native mode.
func hidden(tool *ethtool.Ethtool, index int, before features) (names []string) {
	l, err := netlink.LinkByIndex(index)
	if err != nil || xdp.HookOf(l).Mode != plan.Native {
		return nil
	}
	driver, err := tool.DriverName(l.Attrs().Name)
	if err != nil {
		return nil
	}
	for _, name := range hiddenFeatures[driver] {
		if before[name].Active {
			names = append(names, name)
		}
	}
	return names
}

// identityOf returns a text that differs between interfaces that have the same index one after the other: that of the hardware,
// if it has one. It does not change with the name.
func identityOf(l netlink.Link) string {
	address := l.Attrs().PermHWAddr
	if len(address) == 0 {
		address = l.Attrs().HardwareAddr
	}
	return l.Type() + " " + address.String()
}

// maxAffected is on how many interfaces features are compared: bridges can have hundreds of ports.
const maxAffected = 16

// affected returns the interface, and the others whose features an attach to it can change: its peer if it is a veth, otherwise
// the interfaces below it. What is in another network namespace is left out.
func affected(index int) (list []netlink.Link) {
	for todo := []int{index}; len(todo) > 0 && len(list) < maxAffected; todo = todo[1:] {
		l, err := netlink.LinkByIndex(todo[0])
		if err != nil || slices.ContainsFunc(list, func(known netlink.Link) bool { return known.Attrs().Index == todo[0] }) {
			continue
		}
		list = append(list, l)
		if l.Type() == "veth" && todo[0] != index {
			continue // its peer is neither that of the program, nor below
		}
		if parent := l.Attrs().ParentIndex; parent != 0 && l.Attrs().NetNsID < 0 {
			todo = append(todo, parent)
		}
		if !slices.Contains([]string{"bond", "team", "bridge"}, l.Type()) {
			continue // without ports; listing all interfaces can take long
		}
		all, _ := netlink.LinkList()
		for _, port := range all {
			if port.Attrs().MasterIndex == todo[0] {
				todo = append(todo, port.Attrs().Index)
			}
		}
	}
	return list
}

// featureSnapshot has the features of the interfaces that an attach can change, as they were before it.
type featureSnapshot []interfaceFeatures

type interfaceFeatures struct {
	link      netlink.Link
	before    features
	inherited []string // what an attachment that is still there has switched off, and the last one to be detached has to restore
}

// readFeatures returns the features before an attach to the interface. others returns what other attachments have switched off.
// What cannot be read counts as if there were no features.
func readFeatures(index int, others func() []switchedOff) (s featureSnapshot) {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return nil
	}
	defer tool.Close()
	for _, l := range affected(index) {
		before, err := tool.FeaturesWithState(l.Attrs().Name)
		if err != nil {
			continue
		}
		i := interfaceFeatures{link: l, before: before}
		if slices.ContainsFunc(lostInGenericMode, func(name string) bool { return before[name].Available && !before[name].Active }) {
			for _, other := range others() {
				if other.Index == l.Attrs().Index && other.Identity == identityOf(l) {
					i.inherited = union(i.inherited, other.Lost)
				}
			}
		}
		s = append(s, i)
	}
	return s
}

// atRisk returns what would have to be restored if the process were killed before it has compared.
func (s featureSnapshot) atRisk() (list []switchedOff) {
	for _, i := range s {
		lost := i.inherited
		for _, name := range lostInGenericMode {
			if i.before[name].Requested {
				lost = union(lost, []string{name})
			}
		}
		if len(lost) > 0 {
			list = append(list, switchedOff{Index: i.link.Attrs().Index, Identity: identityOf(i.link), Lost: lost})
		}
	}
	return list
}

// compare returns what has been switched off since, for each interface with something.
func (s featureSnapshot) compare() (list []switchedOff) {
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return nil
	}
	defer tool.Close()
	for _, i := range s {
		after, err := tool.FeaturesWithState(i.link.Attrs().Name)
		if err != nil {
			continue
		}
		off, lost := compareFeatures(i.before, after)
		now := switchedOff{
			Index: i.link.Attrs().Index, Identity: identityOf(i.link),
			Lost: union(lost, i.inherited), Hidden: hidden(tool, i.link.Attrs().Index, i.before),
		}
		now.Off = union(union(off, i.inherited), now.Hidden)
		if len(now.Off) > 0 || len(now.Lost) > 0 {
			list = append(list, now)
		}
	}
	return list
}

// union returns the elements of both, sorted, each once.
func union(x, y []string) []string {
	all := slices.Concat(x, y)
	slices.Sort(all)
	return slices.Compact(all)
}

// switchOff switches features of an interface off, and reports whether one of them was on. A driver that refuses native mode
// because of one of them may accept it then.
func switchOff(index int, names []string) bool {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return false
	}
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return false
	}
	defer tool.Close()
	now, err := tool.FeaturesWithState(l.Attrs().Name)
	if err != nil {
		return false
	}
	wish := map[string]bool{}
	for _, name := range names {
		if is := now[name]; is.Active && is.Available && !is.NeverChanged {
			wish[name] = false
		}
	}
	return len(wish) > 0 && tool.Change(l.Attrs().Name, wish) == nil
}

// notLost returns the offloads without those that the attach itself has switched off. That these are off does not mean that the
// user has changed something: they are restored at the detach.
func notLost(offloads []string, list []switchedOff, index int) []string {
	return slices.DeleteFunc(slices.Clone(offloads), func(name string) bool {
		return slices.ContainsFunc(list, func(s switchedOff) bool { return s.Index == index && slices.Contains(s.Lost, name) })
	})
}

// restoreFeatures switches on what detached programs have switched off and the kernel does not switch on again. It does so only
// where the interface is still the same, no program is on it or on an interface above, and the features are off and not asked
// for. If somebody has switched them off too meanwhile, they look the same, and are switched on. Other features are not changed.
func restoreFeatures(list []switchedOff) error {
	if !slices.ContainsFunc(list, func(s switchedOff) bool { return len(s.Lost) > 0 }) {
		return nil
	}
	all, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("restore features: %w", err)
	}
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("restore features: %w", err)
	}
	defer tool.Close()
	var errs []error
	for _, s := range list {
		at := slices.IndexFunc(all, func(l netlink.Link) bool { return l.Attrs().Index == s.Index && identityOf(l) == s.Identity })
		if at < 0 || hasProgram(all[at]) || upperWithProgram(s.Index, all) != nil {
			continue
		}
		name := all[at].Attrs().Name
		now, err := tool.FeaturesWithState(name)
		if err != nil {
			continue // the interface is gone
		}
		if wish := toRestore(s.Lost, now, forbidsLRO(all[at], all)); len(wish) > 0 {
			if err := tool.Change(name, wish); err != nil && !errors.Is(err, unix.ENODEV) {
				errs = append(errs, fmt.Errorf("switch %s of %s on again: %w", strings.Join(slices.Sorted(maps.Keys(wish)), ", "), name, permission(err)))
			}
		}
	}
	return errors.Join(errs...)
}

// toRestore returns those of the lost features that can be switched on and are not asked for, as package ethtool wants them.
func toRestore(lost []string, now features, noLRO bool) map[string]bool {
	wish := map[string]bool{}
	for _, name := range lost {
		is, known := now[name]
		if known && is.Available && !is.NeverChanged && !is.Active && !is.Requested && (name != rxLRO || !noLRO) {
			wish[name] = true
		}
	}
	return wish
}

// hasProgram reports whether a program is on the hook, also one that is offloaded.
func hasProgram(l netlink.Link) bool {
	return l.Attrs().Xdp != nil && l.Attrs().Xdp.Attached
}

// forbidsLRO reports whether the kernel may have switched LRO off for another reason: it does so if packets are forwarded
// (devinet_sysctl_forward, dev_forward_change), and for ports of bridges and the like. It would not do so again. Bonds and teams
// decide for their members (netdev_sync_upper_features).
func forbidsLRO(l netlink.Link, all []netlink.Link) bool {
	for _, family := range []string{"ipv4", "ipv6"} {
		value, err := os.ReadFile("/proc/sys/net/" + family + "/conf/" + l.Attrs().Name + "/forwarding")
		if err == nil && strings.TrimSpace(string(value)) != "0" {
			return true
		}
	}
	return slices.ContainsFunc(all, func(master netlink.Link) bool {
		return master.Attrs().Index == l.Attrs().MasterIndex && master.Type() != "bond" && master.Type() != "team"
	})
}

func (f folder) featuresPin() string { return f.path + "/features" }

// saveFeatures stores what an attach has switched off, in place of what was stored before.
func (f folder) saveFeatures(list []switchedOff) error {
	if len(list) == 0 {
		if err := os.Remove(f.featuresPin()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return permission(fmt.Errorf("store which features are switched off: %w", err))
		}
		return nil
	}
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if len(text) >= unix.PathMax { // of many interfaces: what is to be restored is kept
		list = slices.Clone(list)
		for i := range list {
			list[i].Off = nil
		}
		if text, err = json.Marshal(list); err != nil {
			return err
		}
	}
	temporary := f.featuresPin() + "_new"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, os.ErrNotExist) {
		return permission(fmt.Errorf("store which features are switched off: %w", err))
	}
	if err := errors.Join(os.Symlink(string(text), temporary), os.Rename(temporary, f.featuresPin())); err != nil {
		return permission(fmt.Errorf("store which features are switched off: %w", err))
	}
	return nil
}

// loadFeatures returns what is stored, nil if nothing is, or if it cannot be parsed.
func (f folder) loadFeatures() []switchedOff {
	text, err := os.Readlink(f.featuresPin())
	if err != nil {
		return nil
	}
	var list []switchedOff
	if json.Unmarshal([]byte(text), &list) != nil {
		return nil
	}
	return list
}

// beginFeatures reads the features before an attach whose pins are in the folder, which exists, and stores those that may have
// to be restored.
func (d *Datapath) beginFeatures(f folder, index int) (featureSnapshot, error) {
	s := readFeatures(index, func() (others []switchedOff) {
		folders, _ := d.folders()
		for _, other := range folders {
			others = append(others, other.loadFeatures()...)
		}
		return others
	})
	return s, f.saveFeatures(s.atRisk())
}

// endFeatures stores what has been switched off since beginFeatures.
func (f folder) endFeatures(s featureSnapshot) error { return f.saveFeatures(s.compare()) }

// restoreAll restores the features of all attachments of this network namespace. Their programs are detached.
func (d *Datapath) restoreAll() error {
	versions, err := folderPaths(d.root())
	errs := []error{err}
	for _, version := range versions {
		paths, err := folderPaths(filepath.Join(version, d.netns))
		errs = append(errs, err)
		for _, path := range paths {
			errs = append(errs, restoreFeatures(folder{path: path}.loadFeatures()))
		}
	}
	return errors.Join(errs...)
}

// featuresOff returns what the attach of the folder has switched off and is off now. The features are read once per map.
func (d *Datapath) featuresOff(f folder, id uint32) []plan.SwitchedOff {
	if off, known := d.switchedOff[id]; known {
		return off
	}
	d.switchedOff[id] = stillOff(f.loadFeatures())
	return d.switchedOff[id]
}

// stillOff returns what is still off of what an attach has switched off, the attach's own interface first.
func stillOff(list []switchedOff) (off []plan.SwitchedOff) {
	if len(list) == 0 {
		return nil
	}
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return nil
	}
	defer tool.Close()
	for _, s := range list {
		l, err := netlink.LinkByIndex(s.Index)
		if err != nil || identityOf(l) != s.Identity {
			continue
		}
		now, err := tool.FeaturesWithState(l.Attrs().Name)
		if err != nil {
			continue
		}
		names := slices.DeleteFunc(slices.Clone(s.Off), func(name string) bool { return now[name].Active && !slices.Contains(s.Hidden, name) })
		if len(names) > 0 {
			off = append(off, plan.SwitchedOff{Interface: l.Attrs().Name, Features: names})
		}
	}
	return off
}
