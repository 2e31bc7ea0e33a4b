// SPDX-License-Identifier: Apache-2.0

package stacks

import (
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/agent/datapath"
	"github.com/xdp-operator/xdp-operator/agent/links"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/test/util/bpffs"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
	"github.com/xdp-operator/xdp-operator/test/util/quiet"
)

// node does in a network namespace what the passes of an agent do.
type node struct {
	*netns.Namespace
	d *datapath.Datapath
}

func newNode(t *testing.T) node {
	t.Helper()
	n := node{Namespace: netns.New(t)}
	n.Do(func() {
		var err error
		if n.d, err = datapath.Open(bpffs.Mount(t), "boot"); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() {
		if err := n.d.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// settle makes passes until nothing is left to attach and to detach, and returns the names of the interfaces that are counted.
func (n node) settle(t *testing.T, selections ...plan.Selection) (counted []string) {
	t.Helper()
	for range 10 {
		var attach, detach, attached []plan.Attachment
		var interfaces []plan.Interface
		n.Do(func() {
			var err error
			if attached, err = n.d.Attached(); err != nil {
				t.Fatal(err)
			}
			if interfaces, err = (links.Links{}).List(); err != nil {
				t.Fatal(err)
			}
			want, _, _ := plan.Desired(selections, interfaces, attached)
			attach, detach = plan.Diff(attached, want, interfaces)
			for _, a := range attach {
				if err := n.d.Attach(a); err != nil {
					t.Log(err)
				}
			}
			for _, a := range detach {
				if err := n.d.Detach(a); err != nil {
					t.Fatal(err)
				}
			}
		})
		if len(attach)+len(detach) > 0 {
			continue
		}
		for _, a := range attached {
			at := slices.IndexFunc(interfaces, a.Live)
			counted = append(counted, interfaces[at].Name)
		}
		slices.Sort(counted)
		return counted
	}
	t.Fatal("after ten passes something is still to be attached or detached")
	return nil
}

// expect settles and compares.
func (n node) expect(t *testing.T, selection plan.Selection, want ...string) {
	t.Helper()
	if got := n.settle(t, selection); !slices.Equal(got, want) {
		t.Errorf("counted at %v, want %v", got, want)
	}
}

// join makes the interface a member of the bond, as "ip link set NAME down; ip link set NAME master BOND" does.
func (n node) join(t *testing.T, name, bond string) {
	t.Helper()
	n.Do(func() {
		member, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		master, err := netlink.LinkByName(bond)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetDown(member); err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetMaster(member, master); err != nil {
			t.Errorf("%s cannot join %s while it is counted: %v", name, bond, err)
		}
		if _, err := quiet.Up(name); err != nil {
			t.Fatal(err)
		}
	})
}

func (n node) leave(t *testing.T, name string) {
	t.Helper()
	n.Do(func() {
		member, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetNoMaster(member); err != nil {
			t.Fatal(err)
		}
	})
}

// bonds reports whether the kernel has the driver of bonds. The kernels of command kernels have it.
func bonds(t *testing.T) bool {
	t.Helper()
	if stacks["bond, active-backup"].built(t) == nil {
		t.Log("this kernel has no bonds")
		return false
	}
	return true
}

// bondOf makes a bond without members.
func (n node) bondOf(t *testing.T, name string, mode netlink.BondMode) {
	t.Helper()
	b := netlink.NewLinkBond(netlink.LinkAttrs{Name: name})
	b.Mode, b.Miimon = mode, 10
	n.Add(t, b)
}

func TestMembersJoinAndLeaveWhileCounted(t *testing.T) {
	if !bonds(t) {
		return
	}
	auto := func(names ...string) plan.Selection {
		return plan.Selection{Counter: "c", Names: names, Mode: plan.Auto}
	}
	t.Run("a member that left comes back", func(t *testing.T) {
		n := newNode(t)
		n.bondOf(t, "bond0", netlink.BOND_MODE_ACTIVE_BACKUP)
		for _, name := range []string{"n0", "n1"} {
			n.Veth(t, name, "p"+name)
			n.join(t, name, "bond0")
		}
		counter := auto("n0", "bond0")
		n.expect(t, counter, "n0", "n1")
		n.leave(t, "n0")
		n.expect(t, counter, "n0", "n1")
		n.join(t, "n0", "bond0")
		n.expect(t, counter, "n0", "n1")
	})
	t.Run("an interface that another counter selects joins", func(t *testing.T) {
		n := newNode(t)
		n.bondOf(t, "bond0", netlink.BOND_MODE_ACTIVE_BACKUP)
		n.Veth(t, "n0", "pn0")
		n.join(t, "n0", "bond0")
		n.Veth(t, "n1", "pn1")
		n.settle(t, auto("bond0"), auto("n1"))
		n.join(t, "n1", "bond0")
		n.expect(t, auto("bond0"), "n0", "n1")
	})
	t.Run("a bond is made while its future members are counted", func(t *testing.T) {
		n := newNode(t)
		counter := auto("w*", "bond*")
		n.Veth(t, "w0", "p0")
		n.Veth(t, "w1", "p1")
		n.expect(t, counter, "w0", "w1")
		n.bondOf(t, "bond0", netlink.BOND_MODE_802_3AD)
		n.expect(t, counter, "w0", "w1")
		n.join(t, "w0", "bond0")
		n.join(t, "w1", "bond0")
		n.expect(t, counter, "w0", "w1")
	})
	t.Run("a member has no native XDP", func(t *testing.T) {
		n := newNode(t)
		n.bondOf(t, "bond0", netlink.BOND_MODE_ACTIVE_BACKUP)
		n.Veth(t, "n0", "pn0")
		n.join(t, "n0", "bond0")
		n.expect(t, auto("bond0"), "n0")
		n.Add(t, &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "d0"}})
		n.join(t, "d0", "bond0")
		n.expect(t, auto("bond0"), "d0", "n0")
	})
	for mode, name := range map[netlink.BondMode]string{netlink.BOND_MODE_BALANCE_TLB: "balance-tlb", netlink.BOND_MODE_BALANCE_ALB: "balance-alb"} {
		t.Run("the bond changes to "+name, func(t *testing.T) {
			n := newNode(t)
			n.bondOf(t, "bond0", netlink.BOND_MODE_ACTIVE_BACKUP)
			n.expect(t, auto("bond0"))
			n.Do(func() {
				b := netlink.NewLinkBond(netlink.LinkAttrs{Name: "bond0"})
				b.Mode = mode
				if err := netlink.LinkModify(b); err != nil {
					t.Error(err)
				}
			})
			n.Veth(t, "n0", "pn0")
			n.join(t, "n0", "bond0")
			n.expect(t, auto("bond0"), "n0")
		})
	}
}

// Versions before 0.1.0 attached to the bond itself.
func TestAttachmentAtTheBondIsReplacedByTheMembers(t *testing.T) {
	if !bonds(t) {
		return
	}
	n := newNode(t)
	n.bondOf(t, "bond0", netlink.BOND_MODE_ACTIVE_BACKUP)
	n.Veth(t, "n0", "pn0")
	n.join(t, "n0", "bond0")
	n.Do(func() {
		bond, err := netlink.LinkByName("bond0")
		if err != nil {
			t.Fatal(err)
		}
		if err := n.d.Attach(plan.Attachment{Index: bond.Attrs().Index, Name: "bond0", Mode: plan.Auto}); err != nil {
			t.Fatal(err)
		}
	})
	n.expect(t, plan.Selection{Counter: "c", Primary: true, Names: []string{"bond0"}, Mode: plan.Auto}, "n0")
}
