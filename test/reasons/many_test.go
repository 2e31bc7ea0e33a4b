// SPDX-License-Identifier: Apache-2.0

package reasons

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

// 4,000 VLANs on a card were a report of nearly a megabyte. Here they are macvlans, because not every kernel has VLANs.
func TestThousandsOfInterfacesOnAnotherMakeASmallReport(t *testing.T) {
	const uppers = 4000
	n := newNode(t, v1alpha1.AttachAuto)
	state := &v1alpha1.XDPNodeState{}
	if err := n.client.Get(t.Context(), types.NamespacedName{Name: "n1"}, state); err != nil {
		t.Fatal(err)
	}
	state.Spec.Counters[0].Names = []string{"eth*"}
	if err := n.client.Update(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	index, _ := n.net.Veth(t, "eth0", "peer")
	n.net.Do(func() {
		for i := range uppers {
			upper := &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("eth0.%d", i), ParentIndex: index}, Mode: netlink.MACVLAN_MODE_BRIDGE}
			if err := netlink.LinkAdd(upper); err != nil {
				t.Fatal(err)
			}
		}
	})
	n.pass()
	status := n.status()
	if i := status.Interfaces[0]; i.Name != "eth0" || i.State != v1alpha1.InterfaceAttached || len(status.Interfaces) != 101 {
		t.Errorf("%d interfaces are listed, the first as %+v", len(status.Interfaces), i)
	}
	want := []v1alpha1.OmittedInterfaces{{UID: "counter-1", Skipped: uppers - 100}}
	if diff := cmp.Diff(want, status.OmittedInterfaces); diff != "" {
		t.Errorf("omitted (-want +got):\n%s", diff)
	}
	text, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the status has %d bytes", len(text))
	if len(text) > 100_000 {
		t.Errorf("the status has %d bytes", len(text))
	}
}
