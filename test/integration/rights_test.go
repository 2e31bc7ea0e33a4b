// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"slices"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/objects"
)

// TestAgentWithoutListPermission checks that the agent works without permission to list, because this API server can stream
// the existing objects at the beginning of a watch.
func TestAgentWithoutListPermission(t *testing.T) {
	role := &rbacv1.ClusterRole{}
	if err := c.Client.Get(t.Context(), types.NamespacedName{Name: "xdp-operator-agent"}, role); err != nil {
		t.Fatal(err)
	}
	rules := slices.Clone(role.Rules)
	set := func(rules []rbacv1.PolicyRule) {
		if err := objects.Edit(context.Background(), c.Client, role, func() { role.Rules = rules }); err != nil {
			t.Error(err)
		}
	}
	without := slices.Clone(rules)
	found := false
	for i := range without {
		without[i].Verbs = slices.DeleteFunc(slices.Clone(without[i].Verbs), func(verb string) bool { return verb == "list" })
		found = found || len(without[i].Verbs) < len(rules[i].Verbs)
	}
	if !found {
		t.Fatal("the role has no permission to list")
	}
	set(without)
	t.Cleanup(func() { set(rules) })
	for _, n := range c.Nodes() {
		restart(t, n)
	}
	counter(t, "unlisted", nil)
	expectReady(t, "unlisted", "True", v1alpha1.ReasonAllInterfacesAttached)
}
