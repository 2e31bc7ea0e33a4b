// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/util/quiet"
)

// liveFrames is BPF_F_TEST_XDP_LIVE_FRAMES of include/uapi/linux/bpf.h: the kernel applies the program's verdict to the frame.
// It requires Linux 5.18.
const liveFrames = 1 << 1

// patience is the timeout for asynchronous work of the kernel.
const patience = 5 * time.Second

// vethPair is a veth pair. Frames that are sent into one end are received by the other end, which can have a program.
type vethPair struct {
	pair     netlink.Link
	receiver int // index
	send     *ebpf.Program
	held     link.Link // send on the sender, where nothing is received: see measureCosts
	link     link.Link // nil if the receiver has no program
	mode     link.XDPAttachFlags
}

// newVethPair creates the pair, for programs in native mode, in the network namespace of the calling thread.
func newVethPair() (w *vethPair, err error) {
	w = &vethPair{mode: link.XDPDriverMode}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	const receiving, sending = "bench0", "bench1"
	attributes := netlink.NewLinkAttrs()
	attributes.Name = receiving
	pair := &netlink.Veth{LinkAttrs: attributes, PeerName: sending}
	if err := netlink.LinkAdd(pair); err != nil {
		return nil, fmt.Errorf("create a veth pair (requires root): %w", err)
	}
	w.pair = pair
	if w.receiver, err = quiet.Up(receiving); err != nil {
		return nil, err
	}
	sender, err := quiet.Up(sending)
	if err != nil {
		return nil, err
	}
	// Without GRO and without a program, a veth has no NAPI and drops redirected frames.
	if err := switchGROOn(receiving); err != nil {
		return nil, err
	}
	if err := quiet.Ready(receiving, sending); err != nil {
		return nil, err
	}
	if w.send, err = loadSend(sender); err != nil {
		return nil, fmt.Errorf("load the sending program: %w", err)
	}
	w.held, err = link.AttachXDP(link.XDPOptions{Program: w.send, Interface: sender, Flags: link.XDPDriverMode})
	if err != nil {
		w.held = nil
		return nil, fmt.Errorf("hold the sending program: %w", err)
	}
	return w, nil
}

// close removes the pair.
func (w *vethPair) close() error {
	errs := []error{w.detach()}
	if w.held != nil {
		errs = append(errs, w.held.Close())
	}
	if w.send != nil {
		errs = append(errs, w.send.Close())
	}
	if w.pair != nil {
		errs = append(errs, netlink.LinkDel(w.pair))
	}
	return errors.Join(errs...)
}

// attach attaches a program to the receiver, and replaces the previous one.
func (w *vethPair) attach(program *ebpf.Program) (err error) {
	if w.link != nil {
		return w.link.Update(program)
	}
	w.link, err = link.AttachXDP(link.XDPOptions{Program: program, Interface: w.receiver, Flags: w.mode})
	if err != nil {
		w.link = nil
	}
	return err
}

func (w *vethPair) detach() error {
	if w.link == nil {
		return nil
	}
	err := w.link.Close()
	w.link = nil
	return err
}

// transmit sends a frame n times and returns the duration. The same CPU receives the frames meanwhile, because the receiver's
// softirq is raised after each batch.
func (w *vethPair) transmit(frame []byte, n int) (time.Duration, error) {
	options := ebpf.RunOptions{Data: frame, Repeat: uint32(n), Flags: liveFrames, BatchSize: 64}
	before := time.Now()
	_, err := w.send.Run(&options)
	return time.Since(before), err
}

// received returns the number of frames that the receiver has passed to the stack or to a program.
func (w *vethPair) received() (uint64, error) {
	l, err := netlink.LinkByIndex(w.receiver)
	if err != nil {
		return 0, fmt.Errorf("find the receiver: %w", err)
	}
	return l.Attrs().Statistics.RxPackets, nil
}

// switchGROOn enables GRO, like "ethtool -K NAME gro on".
func switchGROOn(name string) error {
	// struct ethtool_value of include/uapi/linux/ethtool.h, and struct ifreq of netdevice(7).
	value := struct{ command, data uint32 }{unix.ETHTOOL_SGRO, 1}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(socket)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(socket), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return fmt.Errorf("switch GRO of %s on: %w", name, errno)
	}
	return nil
}
