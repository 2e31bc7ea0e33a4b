// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// frameSender sends the demo's frames to every node, and counts them.
type frameSender struct {
	mu      sync.Mutex // held while sending
	senders map[string]*frames.Sender
	weight  map[string]int
	flooded string // the node that receives mostly ICMP
	sent    map[string]traffic.Totals
	err     error
}

func newFrameSender(t *testing.T, nodes []*netnscluster.Node) *frameSender {
	t.Helper()
	w := &frameSender{senders: map[string]*frames.Sender{}, weight: map[string]int{}, sent: map[string]traffic.Totals{}}
	for i, n := range nodes {
		w.connect(t, n)
		w.weight[n.Name] = i + 1
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				w.round()
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		if w.err != nil {
			t.Error(w.err)
		}
		for _, s := range w.senders {
			_ = s.Close()
		}
	})
	return w
}

// connect opens a new sender to a node.
func (w *frameSender) connect(t *testing.T, n *netnscluster.Node) {
	t.Helper()
	sender, err := n.Sender()
	if err != nil {
		t.Fatal(err)
	}
	if old := w.senders[n.Name]; old != nil {
		_ = old.Close()
	}
	w.senders[n.Name] = sender
}

func (w *frameSender) round() {
	w.mu.Lock()
	defer w.mu.Unlock()
	kinds := frames.Common()
	for name, sender := range w.senders {
		sent := w.sent[name]
		for k, f := range kinds {
			times := w.weight[name] * (len(kinds) - k)
			if w.flooded == name && f.Class == traffic.IP(traffic.IPv4, 1) {
				times *= 40
			}
			if err := sender.Send(f.Data, times); err != nil {
				w.err = fmt.Errorf("send %s to %s: %w", f.Name, name, err)
				return
			}
			sent[f.Class] = sent[f.Class].Plus(traffic.Counts{Packets: uint64(times), Bytes: uint64(times * len(f.Data))})
		}
		w.sent[name] = sent
	}
}

// held calls do while no frames are sent.
func (w *frameSender) held(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

// all returns the frames sent to all nodes. The caller holds the sender.
func (w *frameSender) all() (sum traffic.Totals) {
	for _, sent := range w.sent {
		sum = sum.Plus(sent)
	}
	return sum
}
