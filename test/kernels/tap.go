// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// newTap returns a tap device for a network card of a guest that the host hands large segments to: one whose frames have a header
// with their size (include/uapi/linux/virtio_net.h). It is in a network namespace of its own, which ends with the file, and nobody
// sends there.
func newTap() (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends in the namespace
		file, err := openTap()
		made <- result{file, err}
	}()
	r := <-made
	return r.file, r.err
}

func openTap() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	const device = "/dev/net/tun"
	file, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	request, err := unix.NewIfreq("tap0")
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(int(file.Fd()), unix.TUNSETIFF, request)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("make a tap device by %s: %w", device, err)
	}
	return file, nil
}
