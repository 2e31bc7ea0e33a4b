// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/agent/datapath"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/util/classify"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
	"github.com/xdp-operator/xdp-operator/test/util/quiet"
)

// patience is the timeout for asynchronous work of the kernel.
const patience = 5 * time.Second

// vethPair is a veth pair. Frames are sent into one end, and the program counts them at the other end in native mode.
type vethPair struct {
	datapath *datapath.Datapath
	sender   *frames.Sender
	pair     netlink.Link
	index    int
	before   traffic.Totals
}

// newVethPair creates the pair in the network namespace of the calling thread, and pins the program in the bpffs.
func newVethPair(bpffs string, mtu int) (w *vethPair, err error) {
	w = &vethPair{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	const counted, sending = "oracle0", "oracle1"
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MTU = counted, mtu
	pair := &netlink.Veth{LinkAttrs: attributes, PeerName: sending, PeerMTU: uint32(mtu)}
	if err := netlink.LinkAdd(pair); err != nil {
		return nil, fmt.Errorf("make a veth pair (needs root): %w", err)
	}
	w.pair = pair
	if w.index, err = quiet.Up(counted); err != nil {
		return nil, err
	}
	from, err := quiet.Up(sending)
	if err != nil {
		return nil, err
	}
	if err := quiet.Ready(counted, sending); err != nil {
		return nil, err
	}
	if w.datapath, err = datapath.Open(bpffs, "oracle"); err != nil {
		return nil, err
	}
	if err := w.datapath.Attach(plan.Attachment{Index: w.index, Name: counted, Mode: plan.Native}); err != nil {
		return nil, err
	}
	if w.sender, err = frames.NewSender(from); err != nil {
		return nil, err
	}
	return w, nil
}

// close removes the pair and the pins.
func (w *vethPair) close() error {
	var errs []error
	if w.sender != nil {
		errs = append(errs, w.sender.Close())
	}
	if w.datapath != nil {
		_, err := w.datapath.Cleanup()
		errs = append(errs, err, w.datapath.Close())
	}
	if w.pair != nil {
		errs = append(errs, netlink.LinkDel(w.pair))
	}
	return errors.Join(errs...)
}

// replay sends each frame that is not skipped, and returns the counts.
func (w *vethPair) replay(capture []frame) (traffic.Totals, error) {
	var sent uint64
	for _, f := range capture {
		if f.skip != "" {
			continue
		}
		if err := w.sender.Send(f.data, 1); err != nil {
			return traffic.Totals{}, fmt.Errorf("frame %d: %w", f.number, err)
		}
		sent++
	}
	return w.counted(sent)
}

// counted waits until the number of frames are counted since the last call, and returns their totals.
func (w *vethPair) counted(sent uint64) (traffic.Totals, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		now, err := w.read()
		if err != nil {
			return traffic.Totals{}, err
		}
		grown := now.Since(w.before)
		if n := grown.Sum().Packets; n == sent {
			w.before = now
			return grown, nil
		} else if n > sent || time.Now().After(deadline) {
			return traffic.Totals{}, fmt.Errorf("%d frames were sent and %d counted", sent, n)
		}
	}
}

func (w *vethPair) read() (traffic.Totals, error) {
	readings, err := w.datapath.Read()
	if err != nil {
		return traffic.Totals{}, err
	}
	for _, r := range readings {
		if r.Index == w.index {
			return r.Totals, nil
		}
	}
	return traffic.Totals{}, errors.New("the attachment is gone")
}

// locate sends the frames one by one, and returns those for which the program's class is not that of package classify. It is
// called if the totals differ.
func (w *vethPair) locate(capture []frame) ([]frame, error) {
	var wrong []frame
	for _, f := range capture {
		if f.skip != "" {
			continue
		}
		got, err := w.replay([]frame{f})
		if err != nil {
			return wrong, err
		}
		if got[classify.Frame(f.data)] != (traffic.Counts{Packets: 1, Bytes: uint64(len(f.data))}) {
			wrong = append(wrong, f)
		}
	}
	return wrong, nil
}
