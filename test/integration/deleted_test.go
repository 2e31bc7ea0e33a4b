// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

func TestNodeStateDeleted(t *testing.T) {
	observe(t)
	n := c.Nodes()[0]
	counter(t, "kept", func(s *v1alpha1.XDPCounterSpec) {
		s.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"name": n.Name}}
	})
	expectReady(t, "kept", "True", v1alpha1.ReasonAllInterfacesAttached)
	var sent traffic.Totals
	for range 2 { // the second time, the retired share exists already
		send(t, n, frames.Common()[0], 5, &sent)
		expectTotals(t, "kept", sent)

		state := &v1alpha1.XDPNodeState{}
		if err := c.Client.Get(t.Context(), types.NamespacedName{Name: n.Name}, state); err != nil {
			t.Fatal(err)
		}
		if err := c.Client.Delete(t.Context(), state); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			next := &v1alpha1.XDPNodeState{}
			if err := c.Client.Get(t.Context(), types.NamespacedName{Name: n.Name}, next); err != nil {
				return err
			}
			for _, i := range next.Status.Interfaces {
				if next.UID != state.UID && i.State == v1alpha1.InterfaceAttached {
					return nil
				}
			}
			return fmt.Errorf("nothing is attached by node state %s, after %s: %v", next.UID, state.UID, next.Status.Interfaces)
		})
	}
	send(t, n, frames.Common()[0], 3, &sent)
	expectTotals(t, "kept", sent)
}
