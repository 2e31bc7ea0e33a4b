package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/xdp-operator/xdp-operator/agent/datapath"
	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/classify"
	"github.com/xdp-operator/xdp-operator/test/frames"
)

// patience is how long something may take that the kernel does by itself.
const patience = 5 * time.Second

// wire is a veth pair: what is sent into one end the counting program counts natively at the other.
type wire struct {
	datapath *datapath.Datapath
	sender   *frames.Sender
	pair     netlink.Link
	index    int
	before   traffic.Totals
}

// newWire makes the pair in the network namespace of the calling thread, and pins the program in the bpffs.
func newWire(bpffs string, mtu int) (w *wire, err error) {
	w = &wire{}
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
	if w.index, err = silentUp(counted); err != nil {
		return nil, err
	}
	from, err := silentUp(sending)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{counted, sending} {
		if err := ready(name); err != nil {
			return nil, err
		}
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

// close leaves nothing.
func (w *wire) close() error {
	var errs []error
	if w.sender != nil {
		errs = append(errs, w.sender.Close())
	}
	if w.datapath != nil {
		errs = append(errs, w.datapath.Cleanup(), w.datapath.Close())
	}
	if w.pair != nil {
		errs = append(errs, netlink.LinkDel(w.pair))
	}
	return errors.Join(errs...)
}

// silentUp sets up an end of the pair that sends nothing by itself.
func silentUp(name string) (index int, err error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", name, err)
	}
	disable := filepath.Join("/proc/sys/net/ipv6/conf", name, "disable_ipv6")
	if err := os.WriteFile(disable, []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	if err := errors.Join(netlink.LinkSetARPOff(link), netlink.LinkSetUp(link)); err != nil {
		return 0, fmt.Errorf("set %s up: %w", name, err)
	}
	return link.Attrs().Index, nil
}

// ready waits until what is sent is not dropped without an error.
func ready(name string) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not come up: %s", name, link.Attrs().OperState)
		}
	}
}

// replay sends each frame that is not skipped once, and returns what was counted.
func (w *wire) replay(capture []frame) (traffic.Totals, error) {
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

// counted waits until so many frames were counted since it was last called, and returns their totals.
func (w *wire) counted(sent uint64) (traffic.Totals, error) {
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

func (w *wire) read() (traffic.Totals, error) {
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

// locate sends the frames one by one and returns those that the program counts otherwise than package classify. It is
// for when the totals have shown that there are some.
func (w *wire) locate(capture []frame) ([]frame, error) {
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
