// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// offloading is a driver that switches features off for each attachment.
type offloading struct {
	*node
	off []plan.SwitchedOff
}

func (d offloading) Attach(a plan.Attachment) error {
	if err := d.node.Attach(a); err != nil {
		return err
	}
	d.attached[len(d.attached)-1].SwitchedOff = d.off
	return nil
}

func TestSwitchedOffFeaturesAreReported(t *testing.T) {
	n := newNode(t, counter("a"))
	n.agent.Datapath = offloading{n, []plan.SwitchedOff{{Interface: "eth0", Features: []string{"rx-gro-hw", "rx-lro"}}, {Interface: "p\x1b", Features: []string{"tx-gso-list"}}}}
	n.settle()
	want := []v1alpha1.SwitchedOffFeatures{{Interface: "eth0", Features: []string{"rx-gro-hw", "rx-lro"}}, {Interface: `p\x1b`, Features: []string{"tx-gso-list"}}}
	if diff := cmp.Diff(want, n.state().Status.Interfaces[0].SwitchedOff); diff != "" {
		t.Errorf("reported (-want +got):\n%s", diff)
	}
	if got := n.agent.passMetrics.get().interfaceMetrics[0].switchedOff; got != 3 {
		t.Errorf("%d features are switched off, by the metric", got)
	}
	n.edit(func(s *v1alpha1.XDPNodeState) { s.Spec.Counters[0].Inactive = true })
	if _, _, err := n.pass(); err != nil {
		t.Fatal(err)
	}
	if i := n.state().Status.Interfaces[0]; i.State != v1alpha1.InterfaceDetaching || i.SwitchedOff != nil {
		t.Errorf("while it is detached: %+v", i)
	}
}

func TestNotMoreFeaturesAreReportedThanTheAPIAllows(t *testing.T) {
	var list []plan.SwitchedOff
	for i := range v1alpha1.MaxSwitchedOffInterfaces + 1 {
		s := plan.SwitchedOff{Interface: "eth" + strconv.Itoa(i)}
		for f := range v1alpha1.MaxSwitchedOffFeatures + 1 {
			s.Features = append(s.Features, "rx-"+strconv.Itoa(f))
		}
		list = append(list, s)
	}
	off := switchedOff(list)
	if len(off) != v1alpha1.MaxSwitchedOffInterfaces || off[0].Interface != "eth0" {
		t.Errorf("%d interfaces, the first is %s", len(off), off[0].Interface)
	}
	for _, s := range off {
		if len(s.Features) != v1alpha1.MaxSwitchedOffFeatures || s.Features[0] != "rx-0" {
			t.Errorf("%d features of %s: %v", len(s.Features), s.Interface, s.Features)
		}
	}
}

// An API server with the CRD of an earlier version does not store the field. That is no reason to report again.
func TestSwitchedOffFeaturesThatAreNotStoredAreNotReportedAgain(t *testing.T) {
	n := newNode(t, counter("a"))
	n.agent.Datapath = offloading{n, []plan.SwitchedOff{{Interface: "eth0", Features: []string{"rx-gro-hw"}}}}
	n.settle()
	state := n.state()
	state.Status.Interfaces[0].SwitchedOff = nil
	if err := n.client.Status().Update(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	steps, _, err := n.pass()
	if diff := cmp.Diff([]string{"read"}, steps); diff != "" || err != nil {
		t.Errorf("steps of the pass (-want +got), error %v:\n%s", err, diff)
	}
}
