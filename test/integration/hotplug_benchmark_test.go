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

// BenchmarkHotplug prints how long it takes from the call that makes an interface until the program is attached to it
// and the next frame is counted, by the real agent of a real API server: on a node with one other interface that is
// counted, with 200 more that are not, and with 200 more that are. Every frame sent afterwards must have been counted.
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
			b.ReportMetric(0, "ns/op") // of what the benchmark does around it
			b.ReportMetric(at(0.5), "ms-median")
			b.ReportMetric(at(0.95), "ms-p95")
			b.ReportMetric(at(1), "ms-max")
		})
	}
}

// plug makes an interface, returns how long it was before it was counted, sends some frames to it and deletes it.
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
	expectSettled(b, n) // what is deleted before it was reported is nobody's
	if err := n.Do(func() error { return netlink.LinkDel(pair) }); err != nil {
		b.Fatal(err)
	}
	expectSettled(b, n) // as interfaces come by themselves, and not in a row
	return took
}
