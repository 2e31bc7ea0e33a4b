// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/kubeletcluster"
	"github.com/xdp-operator/xdp-operator/test/util/bulk"
)

// transferCounter counts an interface to which a sender on the same machine hands over many frames in one piece, as a pod does.
const transferCounter = `apiVersion: xdp-operator.io/v1alpha1
kind: XDPCounter
metadata: {name: %s}
spec:
  nodeSelector: {matchLabels: {kubernetes.io/hostname: %s}}
  interfaces: {names: [bulk0]}
  attachMode: %s
  reportInterval: 1s
`

// transfer sends by TCP to one node in generic and to another in native mode, and compares with the frames on the wire.
func transfer(t *testing.T) {
	for i, mode := range []v1alpha1.AttachMode{v1alpha1.AttachGeneric, v1alpha1.AttachNative} {
		t.Run(string(mode), func(t *testing.T) { transferTo(t, c.Nodes()[i], mode) })
	}
	expectTotals(t) // of the other counters
}

func transferTo(t *testing.T, n *kubeletcluster.Node, mode v1alpha1.AttachMode) {
	name := "transfer-" + strings.ToLower(string(mode))
	if err := n.AddPair("bulk0", "bulk1"); err != nil {
		t.Fatal(err)
	}
	cmd := tools.Kubectl(t.Context(), "apply", "--filename", "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(transferCounter, name, n.Name, mode))
	run(t, cmd)
	kubectl(t, "wait", "--for=condition=Ready", "--timeout=1m", "xdpcounter/"+name)
	address, err := bulk.Addresses(n.Client, n, "bulk1", "bulk0")
	if err != nil {
		t.Fatal(err)
	}
	connection, err := bulk.Connect(t.Context(), n.Client, n, address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close() // not earlier, since its end is more frames
	if err := connection.Send(16 << 20); err != nil {
		t.Fatal(err)
	}
	frames, err := connection.Sent()
	if err != nil {
		t.Fatal(err)
	}
	var packets uint64
	err = n.Do(func() error {
		l, err := netlink.LinkByName("bulk0")
		if err == nil {
			packets = l.Attrs().Statistics.RxPackets
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if mode == v1alpha1.AttachGeneric && packets > frames.Packets/2 {
		t.Errorf("%d frames have arrived as %d packets: there was nothing to test", frames.Packets, packets)
	}
	var want traffic.Totals
	want[traffic.IP(traffic.IPv4, 6)] = frames
	eventually(t, func() error {
		x, err := get(t.Context(), name)
		if err != nil {
			return err
		}
		numbers := x.Status.Interfaces
		if numbers == nil || mode == v1alpha1.AttachGeneric && numbers.Generic != 1 || mode == v1alpha1.AttachNative && numbers.Native != 1 {
			return fmt.Errorf("%s is attached to %+v", name, numbers)
		}
		return differs(name, v1alpha1.TotalsOfProtocols(x.Status.Protocols), want)
	})
	t.Logf("counted: %d frames, %d bytes, which arrived as %d packets", frames.Packets, frames.Bytes, packets)

	kubectl(t, "delete", "xdpcounter", name)
	eventually(t, func() error {
		s, err := state(t.Context(), n.Name)
		if err == nil && slices.ContainsFunc(s.Status.Interfaces, func(i v1alpha1.NodeInterface) bool { return i.Name == "bulk0" }) {
			return errors.New("bulk0 is still counted")
		}
		return err
	})
	err = n.Do(func() error {
		l, err := netlink.LinkByName("bulk0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
	if err != nil {
		t.Error(err)
	}
}
