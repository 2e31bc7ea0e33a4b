// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/xdp-operator/xdp-operator/test/env/controlplane"
)

// fabric makes a Fabric for the test with nodes of the names given.
func fabric(t *testing.T, names ...string) (*Fabric, []*Node) {
	t.Helper()
	f, err := box.NewFabric(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Remove(); err != nil {
			t.Error(err)
		}
	})
	var nodes []*Node
	for _, name := range names {
		n, err := f.AddNode(name)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
	}
	return f, nodes
}

func TestNodesReachTheSandbox(t *testing.T) {
	_, nodes := fabric(t, "n1", "n2")
	server, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(FabricAddress, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	go func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, conn.RemoteAddr().(*net.TCPAddr).IP.String())
			_ = conn.Close()
		}
	}()
	for _, n := range nodes {
		var got []byte
		err := n.Do(func() error {
			conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(t.Context(), "tcp", server.Addr().String())
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			got, err = io.ReadAll(conn)
			return err
		})
		if err != nil || string(got) != n.Address.String() {
			t.Errorf("%s: the server saw %q, %v, want %s", n.Name, got, err, n.Address)
		}
	}
	if diff := cmp.Diff([]string{"10.77.0.11", "10.77.0.12"}, []string{nodes[0].Address.String(), nodes[1].Address.String()}); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
}

func TestNodeLooksLikeOne(t *testing.T) {
	_, nodes := fabric(t, "n1")
	n := nodes[0]
	out, err := n.Command(t.Context(), "ip", "-4", "route").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := "default via 10.78.1.254 dev eth0 \n" +
		"10.77.0.0/24 dev mgmt0 proto kernel scope link src 10.77.0.11 \n" +
		"10.78.1.0/24 dev eth0 proto kernel scope link src 10.78.1.1 \n"
	if diff := cmp.Diff(want, string(out)); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	err = n.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if got := link.Attrs().HardwareAddr.String(); got != "02:00:0a:4e:01:01" {
			t.Errorf("eth0 has the address %s", got)
		}
		if a := link.Attrs(); a.MTU != 1500 || a.RawFlags&unix.IFF_NOARP == 0 || a.OperState != netlink.OperUp {
			t.Errorf("eth0: MTU %d, flags %#x, %s", a.MTU, a.RawFlags, a.OperState)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(n.BPFFS, &fs); err != nil || fs.Type != unix.BPF_FS_MAGIC {
		t.Errorf("%s has type %#x, error %v", n.BPFFS, fs.Type, err)
	}
	if out, err := n.Command(t.Context(), "sh", "-c", "echo no >&2; exit 3").Output(); err == nil || err.Error() != "exit status 3: no" {
		t.Errorf("a command that fails: got %q, %v", out, err)
	}
	if err := n.Do(func() error { return io.EOF }); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want the error of the function", err)
	}
}

func TestFramesOnTheWireArriveAtEth0AndNothingElseDoes(t *testing.T) {
	_, nodes := fabric(t, "n1")
	n := nodes[0]
	// Long enough for router solicitations (one second after the link is up).
	time.Sleep(1500 * time.Millisecond)
	if got := received(t, n); got != 0 {
		t.Errorf("%d packets before any was sent", got)
	}
	const frames = 1000
	err := n.Client.Do(func() error {
		// A signal, such as the Go runtime sends itself, would have the run begin anew. The thread ends with the test.
		runtime.LockOSThread()
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, &unix.Sigset_t{Val: [16]uint64{1 << (unix.SIGURG - 1)}}, nil); err != nil {
			return err
		}
		wire, err := netlink.LinkByName("wire0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		frame := make([]byte, 60)
		binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_LOOPBACK)
		for range frames {
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: wire.Attrs().Index}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if got := received(t, n); got != frames {
			return fmt.Errorf("%d packets arrived, %d were sent", got, frames)
		}
		return nil
	})
}

// received returns how many packets eth0 has received.
func received(t *testing.T, n *Node) (packets uint64) {
	t.Helper()
	err := n.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			packets = link.Attrs().Statistics.RxPackets
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return packets
}

// The fast way to send: the kernel runs a program that sends the frame on, see "Running XDP programs in live frame
// mode" in Documentation/bpf/bpf_prog_run.rst.
func TestLiveFramesOfXDPArriveWithoutAProgramOnEth0(t *testing.T) {
	_, nodes := fabric(t, "n1")
	n := nodes[0]
	const frames = 64 * 100
	const xdpTX = 3 // enum xdp_action of include/uapi/linux/bpf.h
	err := n.Client.Do(func() error {
		wire, err := netlink.LinkByName("wire0")
		if err != nil {
			return err
		}
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.XDP, License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpTX), asm.Return()},
		})
		if err != nil {
			return err
		}
		defer func() { _ = program.Close() }()
		_, err = program.Run(&ebpf.RunOptions{
			Data: make([]byte, 60), Repeat: frames, Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES,
			// struct xdp_md of include/uapi/linux/bpf.h
			Context: struct{ Data, DataEnd, DataMeta, IngressIfindex, RxQueueIndex, EgressIfindex uint32 }{
				DataEnd: 60, IngressIfindex: uint32(wire.Attrs().Index),
			},
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if got := received(t, n); got != frames {
			return fmt.Errorf("%d packets arrived, %d were sent", got, frames)
		}
		return nil
	})
}

// state returns what nodes leave their traces in.
func state(t *testing.T) map[string]string {
	t.Helper()
	got := map[string]string{}
	for name, args := range map[string][]string{
		"links": {"ls", "-1", "/proc/sys/net/ipv4/conf"}, "netns": {"ls", "/run/netns"}, "mounts": {"cat", "/proc/self/mounts"},
	} {
		out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v, %s", args, err, out)
		}
		got[name] = string(out)
	}
	return got
}

func TestRemoveLeavesNothing(t *testing.T) {
	f, _ := fabric(t)
	before := state(t)
	n, err := f.AddNode("n1")
	if err != nil {
		t.Fatal(err)
	}
	sleep := n.Command(context.Background(), "sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(n.BPFFS, "pins"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := n.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := sleep.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("the node's process: got %v", err)
	}
	if diff := cmp.Diff(before, state(t)); diff != "" {
		t.Errorf("before and after (-want +got):\n%s", diff)
	}
	if left, err := os.ReadDir(f.dir); err != nil || len(left) != 0 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
	again, err := f.AddNode("n1")
	if err != nil {
		t.Fatal(err)
	}
	if again.Address != n.Address {
		t.Errorf("made again it has %s, not %s", again.Address, n.Address)
	}
}

func TestAddNodeThatFailsLeavesNothing(t *testing.T) {
	f, _ := fabric(t)
	before := state(t)
	// The folder of the bpffs cannot be made: all else has been made by then.
	if err := os.WriteFile(filepath.Join(f.dir, "n1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.AddNode("n1"); err == nil || !strings.HasPrefix(err.Error(), "add node n1: mkdir ") {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff(before, state(t)); diff != "" {
		t.Errorf("before and after (-want +got):\n%s", diff)
	}
	if len(f.nodes) != 0 {
		t.Errorf("nodes are %v", f.nodes)
	}
}

// A connection survives that the port goes which was the bridge's first, and a node is found again at once when it
// is made anew.
func TestNodesComeAndGo(t *testing.T) {
	f, nodes := fabric(t, "n1", "n2")
	server, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(FabricAddress, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	go func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn) }()
		}
	}()
	dial := func(n *Node) (conn net.Conn) {
		t.Helper()
		err := n.Do(func() (err error) {
			conn, err = (&net.Dialer{Timeout: 2 * time.Second}).DialContext(t.Context(), "tcp", server.Addr().String())
			return err
		})
		if err != nil {
			t.Fatalf("%s: %v", n.Name, err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	echo := func(conn net.Conn) {
		t.Helper()
		_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	dial(nodes[0])
	second := dial(nodes[1])
	echo(second)
	if err := nodes[0].Remove(); err != nil {
		t.Fatal(err)
	}
	echo(second)
	again, err := f.AddNode("n1")
	if err != nil {
		t.Fatal(err)
	}
	echo(dial(again))
	echo(second)
}

func TestControlPlaneOnTheFabric(t *testing.T) {
	_, nodes := fabric(t, "n1", "n2")
	c, err := controlplane.Start(t.Context(), controlplane.Options{Address: FabricAddress, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	for _, n := range nodes {
		kubectl := c.Kubectl(t.Context(), "get", "namespaces", "-o", "name")
		out, err := n.Command(t.Context(), kubectl.Path, kubectl.Args[1:]...).Output()
		if err != nil || !strings.Contains(string(out), "namespace/kube-system\n") {
			t.Errorf("%s: got %q, %v", n.Name, out, err)
		}
	}
}
