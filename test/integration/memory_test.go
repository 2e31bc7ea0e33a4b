// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
)

const (
	// memoryBudget is the maximum resident memory of an agent that counts on memoryInterfaces.
	memoryBudget     = 40 << 20
	memoryInterfaces = 8
	memoryScrapes    = 20
)

// TestAgentMemory measures an agent that counts, reports every second and is scraped over TLS.
func TestAgentMemory(t *testing.T) {
	n := c.Nodes()[0]
	for i := range memoryInterfaces - 1 { // eth0 exists already
		attrs := netlink.NewLinkAttrs()
		attrs.Name = fmt.Sprintf("mem%d", i)
		pair := &netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf("peer%d", i)}
		if err := n.Do(func() error { return netlink.LinkAdd(pair) }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := n.Do(func() error { return netlink.LinkDel(pair) }); err != nil {
				t.Error(err)
			}
		})
	}
	restart(t, n, "--metrics-bind-address="+agentMetrics)
	reader := metricsReader(t)
	counter(t, "memory", func(spec *v1alpha1.XDPCounterSpec) {
		spec.Interfaces = &v1alpha1.InterfaceSelector{Primary: true, Names: []v1alpha1.InterfacePattern{"mem*"}}
	})
	eventually(t, func() error {
		x, err := get(t, "memory")
		if err != nil {
			return err
		}
		if want := int32(memoryInterfaces + len(c.Nodes()) - 1); x.Status.Interfaces == nil || x.Status.Interfaces.Attached != want {
			return fmt.Errorf("attached: %+v, want %d", x.Status.Interfaces, want)
		}
		return nil
	})
	for range memoryScrapes {
		eventually(t, func() error {
			return n.Do(func() error {
				got, err := ask(t.Context(), agentMetrics, "/metrics", "Bearer "+reader)
				if err == nil && got.status != http.StatusOK {
					err = errors.New(got.body)
				}
				return err
			})
		})
	}
	size, err := n.Agent.Resident()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("an agent that counts on %d interfaces has %.1f MiB resident after %d scrapes (budget %d MiB)",
		memoryInterfaces, float64(size)/(1<<20), memoryScrapes, memoryBudget>>20)
	if size > memoryBudget {
		t.Error("that is too much")
	}
}
