// SPDX-License-Identifier: Apache-2.0

// Package netns gives a test network namespaces of its own, with interfaces on which only the test's frames pass.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/util/quiet"
)

// Namespace is a network namespace without a name. It and its interfaces end with the test, also with a killed one:
// only open files hold it.
type Namespace struct {
	file *os.File
}

// New makes a namespace that lasts as long as the test, with nothing in it but lo, which is down.
func New(t testing.TB) *Namespace {
	t.Helper()
	var file *os.File
	var err error
	onThreadOfItsOwn(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("make a network namespace (needs root): %w", err)
			return
		}
		file, err = os.Open("/proc/thread-self/ns/net")
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return &Namespace{file: file}
}

// onThreadOfItsOwn runs fn in a thread that ends with it, whatever fn did to the thread.
func onThreadOfItsOwn(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocks
		fn()
	}()
	<-done
}

// File is the namespace's file, for setns(2). It is closed by the end of the test.
func (n *Namespace) File() *os.File { return n.file }

// Do runs fn in the namespace: the calling goroutine, but none that it starts, and restores the thread's own
// namespace afterwards, also if fn ends the test. Calls may be nested.
func (n *Namespace) Do(fn func()) {
	runtime.LockOSThread()
	before, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		panic(err)
	}
	defer before.Close()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		panic(fmt.Errorf("enter the network namespace: %w", err))
	}
	defer func() {
		if err := unix.Setns(int(before.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(fmt.Errorf("leave the network namespace: %w", err)) // with the thread still locked: it is lost
		}
		runtime.UnlockOSThread()
	}()
	fn()
}

// Veth makes a veth pair in the namespace and sets both ends up. They send nothing by themselves: no IPv6, no ARP,
// no addresses. Frames sent out of one end are received by the other.
func (n *Namespace) Veth(t testing.TB, name, peer string) (index, peerIndex int) {
	t.Helper()
	n.Add(t, &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer})
	index, peerIndex = n.Up(t, name), n.Up(t, peer)
	n.Ready(t, name, peer)
	return index, peerIndex
}

// Ready waits until frames can be sent out of the interfaces.
func (n *Namespace) Ready(t testing.TB, names ...string) {
	t.Helper()
	n.Do(func() {
		if err := quiet.Ready(names...); err != nil {
			t.Fatal(err)
		}
	})
}

// Bridge makes a bridge without ports, whose driver has no native XDP, and sets it up.
func (n *Namespace) Bridge(t testing.TB, name string) (index int) {
	t.Helper()
	n.Add(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}})
	return n.Up(t, name)
}

// Add makes any interface.
func (n *Namespace) Add(t testing.TB, link netlink.Link) {
	t.Helper()
	n.Do(func() {
		if err := netlink.LinkAdd(link); err != nil {
			t.Fatalf("add %s %s: %v", link.Type(), link.Attrs().Name, err)
		}
	})
}

// Up silences the interface, sets it up and returns its index.
func (n *Namespace) Up(t testing.TB, name string) (index int) {
	t.Helper()
	n.Do(func() {
		var err error
		if index, err = quiet.Up(name); err != nil {
			t.Fatal(err)
		}
	})
	return index
}

// Delete deletes an interface, of a veth pair both ends.
func (n *Namespace) Delete(t testing.TB, name string) {
	t.Helper()
	n.Do(func() {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatalf("find %s: %v", name, err)
		}
		if err := netlink.LinkDel(link); err != nil {
			t.Fatalf("delete %s: %v", name, err)
		}
	})
}

// Rename renames an interface while it is up, which kernels before 6.2 allow only when it is down.
func (n *Namespace) Rename(t testing.TB, name, to string) {
	t.Helper()
	n.Do(func() {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatalf("find %s: %v", name, err)
		}
		err = netlink.LinkSetName(link, to)
		if errors.Is(err, unix.EBUSY) {
			err = errors.Join(netlink.LinkSetDown(link), netlink.LinkSetName(link, to), netlink.LinkSetUp(link))
		}
		if err != nil {
			t.Fatalf("rename %s to %s: %v", name, to, err)
		}
	})
}
