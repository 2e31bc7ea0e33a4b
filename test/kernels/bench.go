// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/bench/source"
	"github.com/xdp-operator/xdp-operator/test/env/controlplane"
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
)

// The addresses on both sides of the tap device.
var (
	hostAddress  = netip.MustParsePrefix("10.9.0.1/24")
	guestAddress = netip.MustParsePrefix("10.9.0.2/24")
)

// tap is the host's side of the guest's virtio_net device. Both exchange large segments (vnet headers), unless the guest switches
// that off. There are more pairs of queues than CPUs, because a program in native mode takes queues for sending.
const tap = "bench0"

var throughTap = []string{
	"-netdev", "tap,id=net,ifname=" + tap + ",script=no,downscript=no,vnet_hdr=on,queues=4",
	"-device", "virtio-net-pci,netdev=net,romfile=,mq=on,vectors=10",
}

// bench boots the kernels one after the other, and measures in each what is left of the traffic from this machine.
func bench(ctx context.Context, versions []string, logs string) error {
	if err := installEmulator(ctx, os.Stderr); err != nil {
		return err
	}
	cache, err := controlplane.CacheDir()
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "xdp-operator-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if err := buildPrograms(ctx, scratch, "./test/kernels/guest", "./test/bench"); err != nil {
		return err
	}
	shelf := shelf{folder: filepath.Join(cache, "kernels"), progress: os.Stderr}
	var missed []error
	for _, version := range versions {
		k, err := shelf.get(ctx, version)
		if err != nil {
			return err
		}
		if err := benchIn(ctx, k, scratch, filepath.Join(logs, version)); err != nil {
			missed = append(missed, fmt.Errorf("on Linux %s: %w", version, err))
		}
	}
	return errors.Join(missed...)
}

// benchIn boots a guest with the kernel, and prints what it measures. It is an error if a budget is missed there.
func benchIn(ctx context.Context, k kernel, programs, logs string) error {
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return err
	}
	address := net.JoinHostPort(hostAddress.Addr().String(), strconv.Itoa(source.Port))
	image := filepath.Join(programs, k.wanted+".cpio")
	err := packWith(image, k, programs, []report.Test{{
		Package: "test/bench", Command: "/bin/bench", Args: []string{"-from", address, "-prefix", guestAddress.String()},
	}}, func(a *archive) {
		a.file("/bin/bench", filepath.Join(programs, "bench"), 0o755)
		a.folder(report.Test{Package: "test/bench"}.Folder())
	})
	if err != nil {
		return err
	}
	// With two CPUs a guest can crash while frames arrive and a program is attached: the kernel changes its code for direct calls
	// (text_poke_bp), and the emulator lets the other CPU execute the breakpoint when it is already gone.
	g := guest{
		kernel: k, initrd: image, console: filepath.Join(logs, "console"), memory: "1G", timeout: 20 * time.Minute,
		network: throughTap, cpus: 1,
	}
	r := &benchResult{}
	err = inNamespace(func() error {
		from, err := listenAtTap(ctx, address)
		if err != nil {
			return err
		}
		ctx, stop := context.WithCancel(ctx)
		served := make(chan error, 1)
		go func() { served <- from.Serve(ctx) }()
		err = g.boot(ctx, r.read)
		stop()
		return errors.Join(err, <-served)
	})
	return errors.Join(err, r.verdict())
}

// benchResult prints what a guest measures.
type benchResult struct {
	status int
	done   bool
	errs   []error
}

// read takes the next line of the guest.
func (r *benchResult) read(text string) {
	line, own, err := report.Parse(text)
	switch {
	case err != nil:
		r.errs = append(r.errs, err)
	case !own:
		fmt.Fprintln(os.Stdout, text)
	case line.Release != "":
		fmt.Fprintf(os.Stdout, "\nvirtio_net, large segments from the host, Linux %s in an emulated machine\n\n", line.Release)
	case line.Error != "":
		r.errs = append(r.errs, errors.New(line.Error))
	case line.End != report.End{}:
		r.status = line.End.Status
	case line.Done:
		r.done = true
	}
}

func (r *benchResult) verdict() error {
	err := errors.Join(r.errs...)
	switch {
	case err != nil:
		return err
	case !r.done:
		return errors.New("the guest ended before it had measured")
	case r.status != 0:
		return fmt.Errorf("the benchmark in the guest ended with status %d", r.status)
	default:
		return nil
	}
}

// listenAtTap creates the tap device, and a source with its address, in the network namespace of the calling thread.
func listenAtTap(ctx context.Context, address string) (*source.Source, error) {
	device := &netlink.Tuntap{
		LinkAttrs: netlink.NewLinkAttrs(), Mode: netlink.TUNTAP_MODE_TAP, Queues: 4,
		Flags: netlink.TUNTAP_MULTI_QUEUE_DEFAULTS | netlink.TUNTAP_VNET_HDR,
	}
	device.Name = tap
	if err := netlink.LinkAdd(device); err != nil {
		return nil, fmt.Errorf("create a tap device (requires root): %w", err)
	}
	var errs []error
	for _, queue := range device.Fds { // the emulator opens them again
		errs = append(errs, queue.Close())
	}
	network := &net.IPNet{IP: hostAddress.Addr().AsSlice(), Mask: net.CIDRMask(hostAddress.Bits(), 32)}
	errs = append(errs, netlink.AddrAdd(device, &netlink.Addr{IPNet: network}), netlink.LinkSetUp(device))
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("set %s up: %w", tap, err)
	}
	return source.Listen(ctx, address)
}

// inNamespace calls fn on a thread in a network namespace of its own. Processes that fn starts are in it, too.
func inNamespace(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("make a network namespace (requires root): %w", err)
			return
		}
		done <- fn()
	}()
	return <-done
}
