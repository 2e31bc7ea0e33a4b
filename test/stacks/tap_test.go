// SPDX-License-Identifier: Apache-2.0

package stacks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/agent/plan"
	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/test/kernels/report"
	"github.com/xdp-operator/xdp-operator/test/util/netns"
)

// A VM hands over large segments through a tap device, with their size and without their number (include/uapi/linux/virtio_net.h).
// In generic mode they count as frames. In native mode the driver, too, passes them to generic XDP, and there the program for native
// mode counts each as one packet (docs/datapath.md).
func TestWireFramesOfAVirtualMachine(t *testing.T) {
	for _, mode := range wireModes {
		t.Run(fmt.Sprintf("%s mode", mode), func(t *testing.T) { testVirtualMachine(t, mode) })
	}
}

func testVirtualMachine(t *testing.T, mode plan.Mode) {
	const mss = 1448
	ethernet := func(kind uint16) []byte {
		return binary.BigEndian.AppendUint16([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}, kind)
	}
	tcp := append(make([]byte, 12), 0x80, 0x10, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0) // 32 bytes, with a timestamp
	ipv4 := func(payload int) []byte {
		h := append([]byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0}, 10, 0, 0, 1, 10, 0, 0, 2)
		binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(tcp)+payload))
		return h
	}
	ipv6 := func(payload int) []byte {
		h := append([]byte{0x60, 0, 0, 0, 0, 0, 6, 64}, make([]byte, 32)...)
		h[8], h[24] = 0xfd, 0xfd
		binary.BigEndian.PutUint16(h[4:], uint16(len(tcp)+payload))
		return h
	}
	tap, u := newTap(t, mode)
	if tap == nil {
		return
	}
	var want traffic.Totals
	for _, payload := range []int{mss, mss + 1, 10 * mss, 10*mss + 7, 40*mss - 1} {
		for _, frame := range []struct {
			family  traffic.Family
			kind    byte // VIRTIO_NET_HDR_GSO_TCPV4, ..._TCPV6
			headers []byte
		}{
			{traffic.IPv4, 1, append(append(ethernet(0x0800), ipv4(payload)...), tcp...)},
			{traffic.IPv6, 4, append(append(ethernet(0x86dd), ipv6(payload)...), tcp...)},
			{traffic.IPv4, 1, append(append(append(ethernet(0x8100), 0, 7, 8, 0), ipv4(payload)...), tcp...)},
		} {
			n := len(frame.headers)
			header := []byte{1, frame.kind} // VIRTIO_NET_HDR_F_NEEDS_CSUM
			for _, field := range []int{n, mss, n - len(tcp), 16} {
				header = binary.NativeEndian.AppendUint16(header, uint16(field))
			}
			if _, err := tap.Write(append(append(header, frame.headers...), make([]byte, payload)...)); err != nil {
				t.Fatal(err)
			}
			frames := (payload + mss - 1) / mss
			if mode == plan.Native {
				frames = 1
			}
			class := traffic.IP(frame.family, unix.IPPROTO_TCP)
			want[class] = want[class].Plus(traffic.Counts{Packets: uint64(frames), Bytes: uint64(frames*n + payload)})
		}
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		readings, err := u.Read()
		if err != nil {
			t.Fatal(err)
		}
		if readings[0].Totals == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("counted %v, want %v", readings[0].Totals.Sum(), want.Sum())
		}
	}
}

// newTap makes a tap device, of which the result is the side of the VM, and counts it.
func newTap(t *testing.T, mode plan.Mode) (*os.File, reader) {
	t.Helper()
	n := netns.New(t)
	var file *os.File
	var u reader
	n.Do(func() {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
		if err != nil && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)) && os.Getenv(report.Guest) == "" {
			t.Log("this kernel has no tap devices")
			return
		}
		check(t, err)
		file = os.NewFile(uintptr(fd), "tap0")
		request, err := unix.NewIfreq("tap0")
		check(t, err)
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		check(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, request))
	})
	if file == nil {
		return nil, nil
	}
	t.Cleanup(func() { file.Close() })
	n.Up(t, "tap0")
	n.Do(func() {
		var err error
		u, err = attachUnpinned(t, "tap0", mode)
		check(t, err)
	})
	return file, u
}

// reader is a datapath.Unpinned.
type reader interface {
	Read() ([]traffic.Reading, error)
}
