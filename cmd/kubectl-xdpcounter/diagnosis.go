// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/internal/format"
)

// diagnosis is what why prints about one counter.
type diagnosis struct {
	ready   bool // whether the counter is Ready, for its current spec
	tree    branch
	reasons map[string]occurrences // those with a remedy
	off     *branch                // which features are switched off, nil if none are
}

// occurrences is where a reason was found.
type occurrences struct {
	count      int
	interfaces []string // their names, each once
}

// iface returns the name of the interface if the reason was found on interfaces of one name only and a shell takes it as one
// word. Otherwise it returns a word that stands for the name.
func (o occurrences) iface() string {
	if len(o.interfaces) == 1 && shellWord.MatchString(o.interfaces[0]) {
		return o.interfaces[0]
	}
	return "INTERFACE"
}

// shellWord matches what needs no quotes in a shell. The name of an interface can have any characters but '/', ':' and spaces.
var shellWord = regexp.MustCompile(`^[\pL\pN._@:+-]+$`)

// add notes that the reason was found count times. iface is the name of the interface, "" if it is not about one.
func (d *diagnosis) add(reason string, count int, iface string) {
	o := d.reasons[reason]
	o.count += count
	if iface != "" && !slices.Contains(o.interfaces, iface) {
		o.interfaces = append(o.interfaces, iface)
	}
	d.reasons[reason] = o
}

// Reasons that only this program uses, beside those of the API.
const (
	notSeen     = "NotSeen"     // the controller has not observed the current spec
	noNodeState = "NoNodeState" // the controller has not written the spec of a selected node yet
	behind      = "Behind"      // the XDPCounter is Ready, but XDPNodeStates are not
)

// diagnose returns why the counter is not Ready, from its status and from all node states.
func diagnose(c *v1alpha1.XDPCounter, states []v1alpha1.XDPNodeState, now time.Time) diagnosis {
	d := diagnosis{reasons: map[string]occurrences{}}
	condition := metav1.Condition{Status: metav1.ConditionUnknown, Reason: v1alpha1.ReasonPending, Message: "it has no status"}
	if found := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionReady); found != nil {
		condition = *found
	}
	seen := c.Status.ObservedGeneration == c.Generation
	d.ready = seen && condition.Status == metav1.ConditionTrue
	d.tree = branch{
		text:    fmt.Sprintf("%s  Ready=%s  %s", c.Name, condition.Status, condition.Reason),
		details: []string{v1alpha1.CauseOf(condition.Message)}, // the remedy is printed once per reason
	}
	switch {
	case !seen:
		d.tree.details = append(d.tree.details, "the controller has not observed the current spec yet")
		d.add(notSeen, 1, "")
	case hasOwnRemedy[condition.Reason]:
		d.add(condition.Reason, 1, "")
	}
	if c.Spec.Suspend {
		return d
	}
	found := 0
	good := 0
	slices.SortFunc(states, func(a, b v1alpha1.XDPNodeState) int { return cmp.Compare(a.Name, b.Name) })
	d.off = switchedOff(c, states)
	for i := range states {
		state := &states[i]
		if entry := state.Spec.Entry(c.UID); entry == nil || entry.Inactive {
			continue
		}
		found++
		if b, ok := d.node(c, state, now); ok {
			good++
		} else {
			d.tree.branches = append(d.tree.branches, b)
		}
	}
	if n := c.Status.Nodes; seen && n != nil && int(n.Selected) > found {
		d.add(noNodeState, int(n.Selected)-found, "")
		d.tree.branches = append(d.tree.branches, branch{text: format.Count(int(n.Selected)-found, "node does", "nodes do") + " not have the counter in the XDPNodeState yet"})
	}
	if d.ready && len(d.tree.branches) > 0 {
		d.tree.details = append(d.tree.details, "but XDPNodeStates have failures, which the status does not include yet")
		d.add(behind, 1, "")
	}
	if good > 0 {
		d.tree.branches = append(d.tree.branches, branch{text: format.Count(good, "node is", "nodes are") + " ready"})
	}
	return d
}

// node returns the findings about a node. ok is true if there are none.
func (d *diagnosis) node(c *v1alpha1.XDPCounter, state *v1alpha1.XDPNodeState, now time.Time) (b branch, ok bool) {
	nodeBranch := func(reason, message string) (branch, bool) {
		d.add(reason, 1, "")
		return branch{text: state.Name + "  " + reason, details: []string{message}}, false
	}
	reason, message := lateness(c, state, now)
	switch {
	case reason != "":
		return nodeBranch(reason, message)
	case !state.Follows(c):
		return nodeBranch(v1alpha1.ReasonPending, "its agent has not applied the current spec yet")
	}
	good, bad := 0, 0
	for _, i := range state.Status.Interfaces {
		switch {
		case !slices.Contains(i.Counters, c.UID), i.State == v1alpha1.InterfaceSkipped: // its frames are counted on another interface
		case i.State == v1alpha1.InterfaceAttached:
			good++
		default:
			bad++
			b.branches = append(b.branches, d.iface(i))
		}
	}
	if more := omitted(state, c.UID); more > 0 {
		bad += more
		b.branches = append(b.branches, branch{text: fmt.Sprintf("and %d more, which the XDPNodeState does not list", more)})
	}
	switch {
	case good == 0 && bad == 0:
		return nodeBranch(v1alpha1.ReasonNoInterfacesMatched, "none of its interfaces match spec.interfaces: "+selected(c.Spec.Interfaces))
	case bad == 0:
		return branch{}, true
	case good > 0:
		b.branches = append(b.branches, branch{text: format.Count(good, "interface is", "interfaces are") + " counted"})
	}
	b.text = fmt.Sprintf("%s  %d of %s not counted", state.Name, bad, format.Count(good+bad, "interface is", "interfaces are"))
	return b, false
}

// omitted returns how many interfaces of the counter are not counted and not listed in the node state, without skipped ones.
func omitted(state *v1alpha1.XDPNodeState, uid types.UID) int {
	n := 0
	for _, o := range state.Status.OmittedInterfaces {
		if o.UID == uid {
			n += int(o.Failed) + int(o.Pending)
		}
	}
	return n
}

func (d *diagnosis) iface(i v1alpha1.NodeInterface) branch {
	name := i.Name
	if name == "" {
		name = "a deleted interface"
	}
	if i.State == v1alpha1.InterfaceDetaching {
		d.add(v1alpha1.ReasonPending, 1, "")
		return branch{text: name + "  detaching"}
	}
	d.add(i.Reason, 1, i.Name)
	b := branch{text: name + "  " + i.Reason}
	if i.Message != "" {
		b.details = []string{v1alpha1.CauseOf(i.Message)} // the remedy is printed once per reason
	}
	return b
}

// selected formats a selector of interfaces.
func selected(s *v1alpha1.InterfaceSelector) string {
	if s == nil {
		return "primary interfaces"
	}
	var parts []string
	if s.Primary {
		parts = append(parts, "primary interfaces")
	}
	for _, name := range s.Names {
		parts = append(parts, string(name))
	}
	text := strings.Join(parts, ", ")
	var excluded []string
	for _, name := range s.Exclude {
		excluded = append(excluded, string(name))
	}
	if len(excluded) > 0 {
		text += ", excluding " + strings.Join(excluded, ", ")
	}
	return text
}
