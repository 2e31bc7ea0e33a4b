// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

func TestInterfaceEvents(t *testing.T) {
	n := c.Nodes()[1]
	counter(t, "events", func(s *v1alpha1.XDPCounterSpec) {
		s.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"name": n.Name}}
	})
	expectReady(t, "events", "True", v1alpha1.ReasonAllInterfacesAttached)
	at := n.Name + "/eth0"
	want := []string{"Normal InterfacesAttached: 1 interface is being counted: " + at}
	expectEvents(t, "events", want...)

	// The hook is lost: the link is detached while the agent is stopped, and another program is attached.
	if err := n.StopAgent(); err != nil {
		t.Fatal(err)
	}
	cutLink(t, n)
	foreign, _ := attachForeign(t, n)
	if err := n.StartAgent(context.Background(), "--health-probe-bind-address="+agentProbes); err != nil {
		t.Fatal(err)
	}
	expectReady(t, "events", "False", v1alpha1.ReasonNothingAttached)
	want = append(want, "Warning InterfacesLost: 1 interface was lost and is not counted: "+at+" (XDPHookInUse)")
	expectEvents(t, "events", want...)

	if err := foreign.Detach(); err != nil {
		t.Fatal(err)
	}
	expectReady(t, "events", "True", v1alpha1.ReasonAllInterfacesAttached)
	want = append(want, "Normal InterfacesReattached: 1 interface is being counted again: "+at)
	expectEvents(t, "events", want...)

	edit(t, "events", func(s *v1alpha1.XDPCounterSpec) { s.Suspend = true })
	want = append(want, "Normal InterfacesDetached: 1 interface is no longer counted: "+at)
	expectEvents(t, "events", want...)
}

// expectEvents waits until the counter has exactly these events, in this order, each sent once.
func expectEvents(t *testing.T, name string, want ...string) {
	t.Helper()
	x, err := get(t, name)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		list := &eventsv1.EventList{}
		if err := c.Client.List(t.Context(), list, client.InNamespace("default")); err != nil {
			return err
		}
		slices.SortFunc(list.Items, func(a, b eventsv1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
		var got []string
		for _, e := range list.Items {
			if e.Regarding.UID != x.UID {
				continue
			}
			text := fmt.Sprintf("%s %s: %s", e.Type, e.Reason, e.Note)
			if e.Series != nil {
				text += fmt.Sprintf(" (%d times)", e.Series.Count)
			}
			got = append(got, text)
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("the events are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		return nil
	})
}

// cutLink detaches the node's program from its interface, as root can do.
func cutLink(t *testing.T, n *netnscluster.Node) {
	t.Helper()
	pins, err := filepath.Glob(filepath.Join(n.BPFFS, "xdp-operator", "v*", "*", "*", "link"))
	if err != nil || len(pins) != 1 {
		t.Fatalf("links pinned on %s: %q, %v; want one", n.Name, pins, err)
	}
	pinned, err := link.LoadPinnedLink(pins[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(pinned.Detach(), pinned.Close()); err != nil {
		t.Fatal(err)
	}
}
