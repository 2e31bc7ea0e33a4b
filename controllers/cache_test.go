// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

func TestStripUnusedFields(t *testing.T) {
	full := reporting("n1", 3, 4, 6)
	full.Status.Interfaces[1].State, full.Status.Interfaces[1].Reason, full.Status.Interfaces[1].Message = v1alpha1.InterfaceFailed, v1alpha1.ReasonXDPHookInUse, "message"
	full.Status.Interfaces[2].Mode, full.Status.Interfaces[2].Reason = v1alpha1.AttachGeneric, v1alpha1.ReasonNativeUnsupported
	full.Status.Interfaces[3].State = v1alpha1.InterfaceSkipped
	full.Status.OmittedInterfaces = []v1alpha1.OmittedInterfaces{{UID: full.Spec.Counters[1].UID, Failed: 2, Skipped: 3}}
	stripped := full.DeepCopy()
	stripNodeState(stripped)

	x := counter("a").Obj()
	x.UID = full.Spec.Counters[1].UID
	results := func(state *v1alpha1.XDPNodeState) []any {
		nodes, states := []corev1.Node{node("n1", "edge")}, []v1alpha1.XDPNodeState{*state}
		return []any{
			summarize(&x, nodes, states, now), state.Spec, *state.Account(x.UID), fmt.Sprint(attachStates(x.UID, states)),
			state.ReportInterval(), lateFrom(state, now), untilNextLate(nodes, states, now), detached(state),
		}
	}
	want := results(full)
	if diff := cmp.Diff(want, results(stripped)); diff != "" {
		t.Errorf("-full +stripped:\n%s", diff)
	}
	if status := want[0].(v1alpha1.XDPCounterStatus); len(status.Protocols) != 6 || len(status.Failures) != 1 {
		t.Errorf("the compared status has too little in it: %+v", status)
	}

	n := unreachable(node("n1", "edge"), born)
	n.Annotations = map[string]string{"a": "b"}
	n.Spec.PodCIDR = "10.0.0.0/24"
	kept := n.DeepCopy()
	stripNode(kept)
	if got := unreachableSince(kept); !got.Equal(born) || kept.Labels["pool"] != "edge" || kept.Annotations != nil || kept.Spec.PodCIDR != "" {
		t.Errorf("the stripped node is %+v, unreachable since %s", kept, got)
	}
}
