// SPDX-License-Identifier: Apache-2.0

// Command pictures writes the terminal pictures of README.md: it runs a cluster as the demo does, sends frames, runs each
// command in a terminal, and draws what stood on that. It is run from the top folder of the clone, as root.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/vishvananda/netlink"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
	"github.com/xdp-operator/xdp-operator/test/util/eventually"
)

// folder is where the pictures belong.
const folder = "docs/pictures"

// wishes are the counters: one that goes well, and one that asks for what two nodes cannot give.
const wishes = `
apiVersion: xdp-operator.io/v1alpha1
kind: XDPCounter
metadata: {name: all-nodes}
spec: {reportInterval: 1s}
---
apiVersion: xdp-operator.io/v1alpha1
kind: XDPCounter
metadata: {name: fast-ports}
spec: {reportInterval: 1s, attachMode: Native, interfaces: {names: ["eth*", "br*"]}}
`

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "pictures:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, folder)); err != nil {
		return fmt.Errorf("run it from the top folder of the clone: %w", err)
	}
	box, err := sandbox.Enter(sandbox.Options{Outside: func() error { return netnscluster.Prepare(context.Background(), root, false, os.Stderr) }})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctrl.SetLogger(logr.Discard())
	dir, err := os.MkdirTemp("", "xdp-operator-pictures-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := netnscluster.Start(ctx, box, netnscluster.Options{Root: root, Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if err := os.Symlink(c.Kubectl(ctx).Path, filepath.Join(dir, "kubectl")); err != nil {
		return err
	}
	path := dir + ":" + filepath.Join(root, "bin") + ":" + os.Getenv("PATH")
	if err := errors.Join(os.Setenv("PATH", path), os.Setenv("KUBECONFIG", c.AdminKubeconfig())); err != nil {
		return err
	}
	return take(ctx, c)
}

// take makes the nodes and takes the pictures.
func take(ctx context.Context, c *netnscluster.Cluster) error {
	for _, name := range []string{"node-a", "node-b", "node-c"} {
		if _, err := c.AddNode(ctx, name, nil); err != nil {
			return err
		}
	}
	sending, stop := context.WithCancel(ctx)
	defer stop()
	sent := make(chan error, 1)
	go func() { sent <- send(sending, c.Nodes()) }()

	// As on any host: there is no agent yet.
	a, b, n := c.Nodes()[0], c.Nodes()[1], c.Nodes()[2]
	if err := picture("xdpcount", "# xdpcount eth0", a.Command(ctx, bin("xdpcount"), "eth0"), 9*time.Second); err != nil {
		return err
	}
	release, err := disturb(ctx, b, n)
	if err != nil {
		return err
	}
	defer release()
	if err := count(ctx, c); err != nil {
		return err
	}
	for _, p := range []struct {
		name, command string
		live          time.Duration // 0: it ends by itself
	}{
		{"top", "kubectl xdpcounter top all-nodes", 45 * time.Second},
		{"top-nodes", "kubectl xdpcounter top all-nodes --by node", 15 * time.Second},
		{"get", "kubectl get xdpcounters", 0},
		{"get-wide", "kubectl get xdpcounters -o wide", 0},
		{"why", "kubectl xdpcounter why fast-ports", 0},
	} {
		words := strings.Fields(p.command)
		if err := picture(p.name, "$ "+p.command, exec.CommandContext(ctx, words[0], words[1:]...), p.live); err != nil {
			return err
		}
	}
	stop()
	if err := <-sent; !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// disturb gives each of two nodes a bridge, which has no native XDP; that of the second is in use until release.
func disturb(ctx context.Context, noDriver, inUse *netnscluster.Node) (release func(), err error) {
	for _, node := range []*netnscluster.Node{noDriver, inUse} {
		err := node.Do(func() error {
			bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
			return errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge))
		})
		if err != nil {
			return nil, fmt.Errorf("add br0 to %s: %w", node.Name, err)
		}
	}
	other := inUse.Command(ctx, bin("xdpcount"), "-S", "br0")
	if err := other.Start(); err != nil {
		return nil, err
	}
	release = func() {
		_ = other.Process.Signal(syscall.SIGTERM)
		_ = other.Wait()
	}
	err = eventually.Check(ctx, 10*time.Second, func() error {
		if ids, err := inUse.Programs(); err != nil || len(ids) == 0 {
			return errors.Join(err, errors.New("xdpcount has not yet attached"))
		}
		return nil
	})
	if err != nil {
		release()
	}
	return release, err
}

// count starts controller and agents, and waits until both counters have got as far as they can.
func count(ctx context.Context, c *netnscluster.Cluster) error {
	if _, err := c.StartController(ctx, "controller", "--status-interval=1s"); err != nil {
		return err
	}
	for _, n := range c.Nodes() {
		if err := n.StartAgent(ctx); err != nil {
			return err
		}
	}
	apply := c.Kubectl(ctx, "apply", "-f", "-")
	apply.Stdin = strings.NewReader(wishes)
	for _, cmd := range []*exec.Cmd{
		apply,
		c.Kubectl(ctx, "wait", "--for=condition=Ready", "--timeout=60s", "xdpcounter/all-nodes"),
		c.Kubectl(ctx, "wait", "--for=condition=Ready=False", "--timeout=60s", "xdpcounter/fast-ports"),
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args[2:], " "), err, out)
		}
	}
	return nil
}

// bin returns the path of a program that netnscluster.Prepare has built.
func bin(name string) string { return filepath.Join("bin", name) }
