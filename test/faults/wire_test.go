package faults

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// The rate on each wire: a burst of frames of one kind per beat.
const (
	beat        = 5 * time.Millisecond
	burstFrames = 3
)

// kinds are what is sent, in turn: what networks are full of, and some of everything else.
var kinds = func() []frames.Frame {
	all := frames.Common()
	for i, f := range frames.All() {
		if i%19 == 0 && f.Class != last.Class {
			all = append(all, f)
		}
	}
	return all
}()

// last is of a class that no other frame has. It is sent last, so what reports it reports all.
var last = of(traffic.IP(traffic.IPv4, 253))

// giant is for MTUs beyond 1500.
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

// wire sends frames to the eth0 of a node at a constant rate, and counts what arrives there: the kernel's own
// statistics say whether it did, and of which class it was is known because a burst is of one kind.
type wire struct {
	node  *netnscluster.Node
	links *netlink.Handle // in the namespace of the sender

	mu      sync.Mutex // held during a burst: who holds it holds the traffic, with all that was sent accounted for
	sender  *frames.Sender
	index   int            // of wire0
	seen    uint64         // by the statistics of wire0, so many had arrived after the last burst
	missing uint64         // frames of the last burst that had not arrived by then
	kind    frames.Frame   // of the last burst
	arrived traffic.Totals // at eth0
	beats   int
	giants  bool // giant frames too
	err     error

	stop chan struct{}
	done chan struct{}
}

func newWire(n *netnscluster.Node) (*wire, error) {
	wire := &wire{node: n, stop: make(chan struct{}), done: make(chan struct{})}
	err := n.Client.Do(func() (err error) {
		wire.links, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, err
	}
	go wire.run()
	return wire, nil
}

func (x *wire) run() {
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

func (x *wire) end() error {
	close(x.stop)
	<-x.done
	x.links.Close()
	if x.sender != nil {
		return errors.Join(x.err, x.sender.Close())
	}
	return x.err
}

// burst sends n frames of a kind, if wire0 is there and has a carrier. The caller holds mu.
func (x *wire) burst(f frames.Frame, n uint64) error {
	x.beats++
	up, err := x.look()
	if err != nil || !up {
		return err
	}
	if err := x.sender.Send(f.Data, int(n)); err != nil &&
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

// look finds wire0 and takes down what has arrived of the last burst. up is false without a carrier.
func (x *wire) look() (up bool, err error) {
	link, err := x.links.LinkByName("wire0")
	if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	a := link.Attrs()
	if a.Index != x.index {
		if x.sender != nil {
			_ = x.sender.Close()
		}
		if x.sender, err = x.node.Sender(); err != nil {
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

// total returns what has arrived so far.
func (x *wire) total() traffic.Totals {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.arrived
}

// held calls fn while nothing is under way to the node.
func (x *wire) held(fn func() error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return fn()
}

// after returns when that many bursts more were sent, or withheld because there is no carrier.
func (x *wire) after(beats int) {
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

func (x *wire) sendGiants(yes bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.giants = yes
}
