// SPDX-License-Identifier: Apache-2.0

// Package quiet sets up interfaces on which nothing passes but what is sent on purpose: no IPv6 of the kernel's own, no
// ARP. Its functions work in the network namespace of the calling thread.
package quiet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
)

// patience is how long the kernel may take until a veth pair is up.
const patience = 5 * time.Second

// Up silences the interface, sets it up and returns its index.
func Up(name string) (index int, err error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", name, err)
	}
	// A kernel without IPv6 is silent already.
	disable := filepath.Join("/proc/sys/net/ipv6/conf", name, "disable_ipv6")
	if err := os.WriteFile(disable, []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	if err := errors.Join(netlink.LinkSetARPOff(link), netlink.LinkSetUp(link)); err != nil {
		return 0, fmt.Errorf("set %s up: %w", name, err)
	}
	return link.Attrs().Index, nil
}

// Ready waits until frames can be sent out of the interfaces. The kernel sees some time after the other end of a
// veth pair came up, and until then drops what is sent without an error.
func Ready(names ...string) error {
	deadline := time.Now().Add(patience)
	for _, name := range names {
		for ; ; time.Sleep(time.Millisecond) {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return fmt.Errorf("find %s: %w", name, err)
			}
			if link.Attrs().OperState == netlink.OperUp {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s does not come up: %s", name, link.Attrs().OperState)
			}
		}
	}
	return nil
}
