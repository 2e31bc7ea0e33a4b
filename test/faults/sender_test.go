// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/util/bulk"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// The rate to each node: a burst of frames of one kind per beat.
const (
	beat        = 5 * time.Millisecond
	burstFrames = 3
)

// kinds lists the frames that are sent in turn: the most common ones, and some of all others.
var kinds = func() []frames.Frame {
	all := frames.Common()
	for i, f := range frames.All() {
		if i%19 == 0 && f.Class != last.Class {
			all = append(all, f)
		}
	}
	return all
}()

// last has a class of its own. It is sent last, so a report that includes it includes all frames.
var last = of(traffic.IP(traffic.IPv4, 253))

// giant is sent if the MTU is larger than 1500.
var giant = func() frames.Frame {
	f := of(traffic.IP(traffic.IPv4, 252))
	f.Name = "a giant frame"
	f.Data = append(slices.Clone(f.Data), make([]byte, 8000)...)
	return f
}()

func of(class traffic.Class) frames.Frame {
	all := frames.Protocols()
	return all[slices.IndexFunc(all, func(f frames.Frame) bool { return f.Class == class })]
}

// frameSender sends frames to the eth0 of a node at a constant rate, and counts those that arrive there. The number is that of
// the kernel's statistics. The class is known because all frames of a burst are of one kind.
type frameSender struct {
	node  *netnscluster.Node
	links *netlink.Handle // in the namespace of the sender

	mu      sync.Mutex // held during a burst. Holding it stops the traffic when all frames sent are accounted for
	socket  *frames.Sender
	index   int            // of wire0
	seen    uint64         // statistics of wire0 after the last burst
	missing uint64         // frames of the last burst that had not arrived then
	kind    frames.Frame   // of the last burst
	arrived traffic.Totals // at eth0
	beats   int
	giants  bool // giant frames too
	err     error

	stop chan struct{}
	done chan struct{}
}

func newFrameSender(n *netnscluster.Node) (*frameSender, error) {
	x := &frameSender{node: n, stop: make(chan struct{}), done: make(chan struct{})}
	err := n.Client.Do(func() (err error) {
		x.links, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, err
	}
	go x.run()
	return x, nil
}

func (x *frameSender) run() {
	defer close(x.done)
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for i := 0; ; i++ {
		select {
		case <-x.stop:
			return
		case <-ticker.C:
		}
		x.mu.Lock()
		f := kinds[i%len(kinds)]
		if x.giants && i%7 == 0 {
			f = giant
		}
		if err := x.burst(f, burstFrames); err != nil && x.err == nil {
			x.err = err
		}
		x.mu.Unlock()
	}
}

func (x *frameSender) end() error {
	close(x.stop)
	<-x.done
	x.links.Close()
	if x.socket != nil {
		return errors.Join(x.err, x.socket.Close())
	}
	return x.err
}

// burst sends n frames of a kind if wire0 exists and has a carrier. The caller holds mu.
func (x *frameSender) burst(f frames.Frame, n uint64) error {
	x.beats++
	up, err := x.look()
	if err != nil || !up {
		return err
	}
	if err := x.socket.Send(f.Data, int(n)); err != nil &&
		!errors.Is(err, unix.ENETDOWN) && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EMSGSIZE) {
		return err
	}
	x.kind, x.missing = f, n
	for deadline := time.Now().Add(200 * time.Millisecond); ; time.Sleep(200 * time.Microsecond) {
		up, err := x.look()
		if err != nil || x.missing == 0 || !up || time.Now().After(deadline) {
			return err
		}
	}
}

// transfer sends by TCP, in large segments if eth0 has no program in native mode. The caller holds mu. arrived has the frames that
// they are on a wire, as the sender's kernel knows them. during is called when a part has been sent.
func (x *frameSender) transfer(ctx context.Context, size int64, during func() error) error {
	if up, err := x.look(); err != nil || !up || x.missing > 0 {
		return fmt.Errorf("wire0 is up: %t, %d frames have not arrived: %w", up, x.missing, err)
	}
	address, err := bulk.Addresses(x.node.Client, x.node, "wire0", "eth0")
	if err != nil {
		return err
	}
	c, err := bulk.Connect(ctx, x.node.Client, x.node, address)
	if err != nil {
		return err
	}
	for part := range 2 {
		if part == 1 {
			err = during()
		}
		if err == nil {
			err = c.Send(size / 2)
		}
		if err != nil {
			return errors.Join(err, c.Close())
		}
	}
	sent, err := c.Finish()
	if err != nil {
		return err
	}
	link, err := x.links.LinkByName("wire0")
	if err != nil {
		return err
	}
	packets := link.Attrs().Statistics.TxPackets - x.seen
	if packets > sent.Packets/2 {
		return fmt.Errorf("%d frames were sent as %d packets: they are no large segments", sent.Packets, packets)
	}
	class := traffic.IP(traffic.IPv4, unix.IPPROTO_TCP)
	x.arrived[class] = x.arrived[class].Plus(sent)
	x.seen += packets
	return nil
}

// look finds wire0 and counts the frames of the last burst that have arrived. up is false without a carrier.
func (x *frameSender) look() (up bool, err error) {
	link, err := x.links.LinkByName("wire0")
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	a := link.Attrs()
	if a.Index != x.index {
		if x.socket != nil {
			_ = x.socket.Close()
		}
		if x.socket, err = x.node.Sender(); err != nil {
			return false, err
		}
		x.index, x.seen, x.missing = a.Index, 0, 0
	}
	arrived := a.Statistics.TxPackets - x.seen
	if arrived > x.missing {
		return false, fmt.Errorf("%d frames arrived at %s that were not sent (%d were)", arrived-x.missing, x.node.Name, x.missing)
	}
	x.arrived[x.kind.Class] = x.arrived[x.kind.Class].Plus(traffic.Counts{Packets: arrived, Bytes: arrived * uint64(len(x.kind.Data))})
	x.missing -= arrived
	x.seen = a.Statistics.TxPackets
	return a.OperState == netlink.OperUp, nil
}

// total returns the frames that have arrived so far.
func (x *frameSender) total() traffic.Totals {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.arrived
}

// held calls fn while no frames are in flight to the node.
func (x *frameSender) held(fn func() error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return fn()
}

// after waits until the number of further bursts were sent, or skipped because there is no carrier.
func (x *frameSender) after(beats int) {
	x.mu.Lock()
	until := x.beats + beats
	x.mu.Unlock()
	for {
		time.Sleep(beat)
		x.mu.Lock()
		now := x.beats
		x.mu.Unlock()
		if now >= until {
			return
		}
	}
}

func (x *frameSender) sendGiants(yes bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.giants = yes
}
