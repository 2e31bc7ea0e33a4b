// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/bench/source"
	"github.com/xdp-operator/xdp-operator/test/util/quiet"
)

// path is the way from a source of traffic to an interface of the network namespace of the calling thread.
type path struct {
	counted string // the interface's name
	source  string // the source's address and port
}

// arriving is what arrives at the counted end of a veth pair.
type arriving int

const (
	aggregates   arriving = iota // the sender hands over large segments, as pods and virtual machines do
	singleFrames                 // the sender cuts them into frames, as they come from a wire; the receiver does GRO
)

// segmentation are the features with which a sender hands over large segments.
var segmentation = []string{
	"tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation",
	"tx-udp-segmentation", "tx-generic-segmentation",
}

// vethPath is a path over a veth pair whose other end is in a network namespace of its own, with a source there.
type vethPath struct {
	path
	link   netlink.Link
	sender netns.NsHandle
	stop   context.CancelFunc
	served chan error // nil if the source was not started
}

// newVethPath creates the path. The calling goroutine must be locked to its thread.
func newVethPath(ctx context.Context, a arriving) (v *vethPath, err error) {
	const counted, peer = "bench2", "bench3"
	v = &vethPath{sender: netns.None(), stop: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.close())
		}
	}()
	if v.sender, err = newNamespace(); err != nil {
		return nil, err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = counted
	pair := &netlink.Veth{LinkAttrs: attributes, PeerName: peer, PeerNamespace: netlink.NsFd(v.sender)}
	if err := netlink.LinkAdd(pair); err != nil {
		return nil, fmt.Errorf("create a veth pair (requires root): %w", err)
	}
	v.link = pair
	var features map[string]bool
	if a == singleFrames {
		features = map[string]bool{"rx-gro": true}
	}
	if err := configure(counted, netip.MustParsePrefix("10.9.0.2/24"), features); err != nil {
		return nil, err
	}
	var s *source.Source
	err = v.atSender(func() error {
		var features map[string]bool
		if a == singleFrames {
			features = map[string]bool{}
			for _, name := range segmentation {
				features[name] = false
			}
		}
		from := netip.MustParsePrefix("10.9.0.1/24")
		if err := configure(peer, from, features); err != nil {
			return err
		}
		if err := quiet.Ready(peer); err != nil {
			return err
		}
		v.source = net.JoinHostPort(from.Addr().String(), strconv.Itoa(source.Port))
		s, err = source.Listen(ctx, v.source)
		return err
	})
	if err != nil {
		return nil, err
	}
	ctx, v.stop = context.WithCancel(ctx)
	v.served = make(chan error, 1)
	go func() { v.served <- s.Serve(ctx) }()
	v.counted = counted
	return v, quiet.Ready(counted)
}

// configure gives the interface an address, sets it up and changes its features.
func configure(name string, address netip.Prefix, features map[string]bool) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	network := &net.IPNet{IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), address.Addr().BitLen())}
	if err := errors.Join(netlink.AddrAdd(l, &netlink.Addr{IPNet: network}), netlink.LinkSetUp(l)); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	if len(features) == 0 {
		return nil
	}
	tool, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer tool.Close()
	known, err := tool.Features(name)
	if err != nil {
		return fmt.Errorf("read the features of %s: %w", name, err)
	}
	for feature := range features {
		if _, ok := known[feature]; !ok {
			delete(features, feature) // of a newer kernel
		}
	}
	if err := tool.Change(name, features); err != nil {
		return fmt.Errorf("change the features of %s: %w", name, err)
	}
	return nil
}

// close ends the source and removes the pair and the namespace.
func (v *vethPath) close() error {
	var errs []error
	v.stop()
	if v.served != nil {
		errs = append(errs, <-v.served)
	}
	if v.link != nil {
		errs = append(errs, netlink.LinkDel(v.link))
	}
	if v.sender.IsOpen() {
		errs = append(errs, v.sender.Close())
	}
	return errors.Join(errs...)
}

// atSender calls fn in the sender's network namespace, on the calling thread.
func (v *vethPath) atSender(fn func() error) (err error) {
	home, err := netns.Get()
	if err != nil {
		return fmt.Errorf("open the network namespace of this thread: %w", err)
	}
	defer home.Close()
	if err := netns.Set(v.sender); err != nil {
		return fmt.Errorf("enter the sender's network namespace: %w", err)
	}
	defer func() { err = errors.Join(err, netns.Set(home)) }()
	return fn()
}

// newNamespace returns a new network namespace, which lasts as long as the handle and what is in it.
func newNamespace() (netns.NsHandle, error) {
	type result struct {
		handle netns.NsHandle
		err    error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{netns.None(), os.NewSyscallError("unshare", err)}
			return
		}
		handle, err := netns.Get()
		done <- result{handle, err}
	}()
	r := <-done
	if r.err != nil {
		return netns.None(), fmt.Errorf("make a network namespace: %w", r.err)
	}
	return r.handle, nil
}
