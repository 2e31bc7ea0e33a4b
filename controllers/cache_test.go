// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testclock "k8s.io/utils/clock/testing"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/memapi"
)

// The cache has less than the managed fields of a node state. The API server keeps them if an update has none.
func TestUpdateOfASpecHasNoManagedFields(t *testing.T) {
	server := memapi.New(func() time.Time { return born })
	client := &memapi.Client{Server: server}
	x, n1, s := counter("a").Obj(), node("n1", ""), state("n1").StoredAt(born).Obj()
	for _, o := range []ctrlclient.Object{&x, &n1, &s} {
		if err := client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	r := &NodeStateReconciler{Client: client, Live: client, Clock: testclock.NewFakePassiveClock(now)}
	if _, err := r.Reconcile(t.Context(), request("n1")); err != nil {
		t.Fatal(err)
	}
	got := &v1alpha1.XDPNodeState{}
	if err := client.Get(t.Context(), request("n1").NamespacedName, got); err != nil {
		t.Fatal(err)
	}
	if len(got.Spec.Counters) != 1 || !got.SpecUpdateTime().Equal(now) || got.ManagedFields != nil {
		t.Errorf("the update has the spec %+v and managed fields %+v, want one counter, the time of the controller and none", got.Spec, got.ManagedFields)
	}
}

func TestStripUnusedFields(t *testing.T) {
	full := reporting("n1", 3, 4, 6)
	full.Status.Interfaces[1].State, full.Status.Interfaces[1].Reason, full.Status.Interfaces[1].Message = v1alpha1.InterfaceFailed, v1alpha1.ReasonXDPHookInUse, "message"
	full.Status.Interfaces[2].Mode, full.Status.Interfaces[2].Reason = v1alpha1.AttachGeneric, v1alpha1.ReasonNativeUnsupported
	full.Status.Interfaces[3].State = v1alpha1.InterfaceSkipped
	full.Status.OmittedInterfaces = []v1alpha1.OmittedInterfaces{{UID: full.Spec.Counters[1].UID, Failed: 2, Skipped: 3}}
	stored := now.Add(-7 * time.Second)
	full.ManagedFields = []metav1.ManagedFieldsEntry{
		{Manager: "controller", Time: &metav1.Time{Time: now}, FieldsV1: &metav1.FieldsV1{}},
		{Manager: "agent", Subresource: "status", Time: &metav1.Time{Time: stored}, FieldsV1: &metav1.FieldsV1{}},
		{Manager: "kubectl-edit", Subresource: "status", Time: &metav1.Time{Time: born}, FieldsV1: &metav1.FieldsV1{}},
	}
	stripped := full.DeepCopy()
	stripNodeState(stripped)

	x := counter("a").Obj()
	x.UID = full.Spec.Counters[1].UID
	results := func(state *v1alpha1.XDPNodeState) []any {
		nodes, states := []corev1.Node{node("n1", "edge")}, []v1alpha1.XDPNodeState{*state}
		return []any{
			statusInTime(&x, nodes, states, now), state.Spec, *state.Account(x.UID), fmt.Sprint(attachStates(x.UID, states)),
			state.ReportInterval(), state.ReportTimeout(), state.LastReported(), fmt.Sprint(seenInTime(nodes, states)), detached(state),
		}
	}
	want := results(full)
	if diff := cmp.Diff(want, results(stripped)); diff != "" {
		t.Errorf("-full +stripped:\n%s", diff)
	}
	if status := want[0].(v1alpha1.XDPCounterStatus); len(status.Protocols) != 6 || len(status.Failures) != 1 {
		t.Errorf("the compared status has too little in it: %+v", status)
	}

	if kept := stripped.ManagedFields; len(kept) != 1 || kept[0].FieldsV1 != nil || !stripped.LastReported().Equal(stored) {
		t.Errorf("the stripped node state has the managed fields %+v, want only when the report was stored, %s", kept, stored)
	}

	n := unreachable(node("n1", "edge"), born)
	n.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet"}}
	n.Annotations = map[string]string{"a": "b"}
	n.Spec.PodCIDR = "10.0.0.0/24"
	kept := n.DeepCopy()
	stripNode(kept)
	if got := unreachableSince(kept); !got.Equal(born) || kept.Labels["pool"] != "edge" || kept.Annotations != nil || kept.ManagedFields != nil || kept.Spec.PodCIDR != "" {
		t.Errorf("the stripped node is %+v, unreachable since %s", kept, got)
	}
}
