// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// BenchmarkHotplug measures the time from the creation of an interface until the program is attached and the next frame is
// counted, with the real agent and API server. It runs on a node with one other counted interface, with 200 more interfaces
// that are not counted, and with 200 more that are. Every frame that is sent after attaching must be counted.
func BenchmarkHotplug(b *testing.B) {
	for _, row := range []struct {
		name   string
		others int
		prefix string
	}{
		{"others=1", 0, ""},
		{"others=200", 200, "other"},
		{"counted=200", 200, "hot-o"},
	} {
		b.Run(row.name, func(b *testing.B) {
			n := c.Nodes()[0]
			addVeth(b, n, "hot-stays", "far-stays")
			for i := range row.others / 2 {
				addVeth(b, n, fmt.Sprintf("%s%da", row.prefix, i), fmt.Sprintf("%s%db", row.prefix, i))
			}
			countHot(b, n)
			var took []time.Duration
			var sent traffic.Totals
			for b.Loop() {
				took = append(took, plug(b, n, &sent))
			}
			expectTotals(b, "hot", sent)
			slices.Sort(took)
			at := func(share float64) float64 {
				return float64(took[min(int(share*float64(len(took))), len(took)-1)].Microseconds()) / 1000
			}
			b.ReportMetric(0, "ns/op") // the default metric would include set-up
			b.ReportMetric(at(0.5), "ms-median")
			b.ReportMetric(at(0.95), "ms-p95")
			b.ReportMetric(at(1), "ms-max")
		})
	}
}

// plug creates an interface, measures the time until it is counted, sends frames to it, and deletes it.
func plug(b *testing.B, n *netnscluster.Node, sent *traffic.Totals) (took time.Duration) {
	b.Helper()
	pair := veth("hot-plugged", "far-plugged")
	err := n.Do(func() error {
		handle, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer handle.Close()
		began := time.Now()
		if err := handle.LinkAdd(pair); err != nil {
			return err
		}
		for ; ; time.Sleep(200 * time.Microsecond) {
			l, err := handle.LinkByName(pair.Name)
			if err != nil {
				return err
			}
			took = time.Since(began)
			if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached {
				break
			}
			if took > soon {
				return fmt.Errorf("not counted after %v", took)
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	sendOn(b, connect(b, n, "hot-plugged", "far-plugged"), frames.Common()[0], 3, sent)
	expectSettled(b, n) // counts of an interface that is deleted before its first report are not assigned to a counter
	if err := n.Do(func() error { return netlink.LinkDel(pair) }); err != nil {
		b.Fatal(err)
	}
	expectSettled(b, n) // a real interface is not created immediately after another is deleted
	return took
}
