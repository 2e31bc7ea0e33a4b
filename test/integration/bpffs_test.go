// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/api/traffic"
	"github.com/xdp-operator/xdp-operator/api/v1alpha1"
	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// newNode adds a node for the duration of the test. No agent runs on it yet.
func newNode(t *testing.T, name string) *netnscluster.Node {
	t.Helper()
	n, err := c.AddNode(t.Context(), name, map[string]string{"name": name})
	if err != nil {
		t.Fatal(err)
	}
	own := n.BPFFS
	t.Cleanup(func() {
		n.BPFFS = own
		object, err := n.Object(context.Background())
		if err := errors.Join(err, c.RemoveNode(n), c.Client.Delete(context.Background(), object)); err != nil {
			t.Error(err)
		}
	})
	return n
}

// counterOn creates a counter that selects one node.
func counterOn(t *testing.T, name string, n *netnscluster.Node) {
	t.Helper()
	counter(t, name, func(s *v1alpha1.XDPCounterSpec) {
		s.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"name": n.Name}}
	})
}

func startAgent(t *testing.T, n *netnscluster.Node, b netnscluster.Build) {
	t.Helper()
	if err := n.StartAgentAs(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

func TestBPFFSMountedLateAndHidden(t *testing.T) {
	observe(t)
	n := newNode(t, "late")
	if err := unix.Unmount(n.BPFFS, 0); err != nil {
		t.Fatal(err)
	}
	startAgent(t, n, netnscluster.Build{})
	counterOn(t, "late", n)
	expectFailure := func() {
		t.Helper()
		expectReady(t, "late", "False", v1alpha1.ReasonNothingAttached)
		x, err := get(t, "late")
		if err != nil {
			t.Fatal(err)
		}
		want := v1alpha1.Failure{
			Node: "late", Interface: "eth0", Reason: v1alpha1.ReasonBPFFSNotMounted,
			Message: "no BPF file system is mounted at " + n.BPFFS + "; remedy: mount the BPF file system on the node; on the node: mount -t bpf bpf /sys/fs/bpf",
		}
		if len(x.Status.Failures) != 1 || x.Status.Failures[0] != want {
			t.Errorf("failures %v, want %v", x.Status.Failures, want)
		}
	}
	expectFailure()
	if err := unix.Mount("bpf", n.BPFFS, "bpf", 0, "mode=0755"); err != nil {
		t.Fatal(err)
	}
	expectReady(t, "late", "True", v1alpha1.ReasonAllInterfacesAttached)
	var sent traffic.Totals
	send(t, n, frames.Common()[0], 3, &sent)
	expectTotals(t, "late", sent)

	// Another file system hides the pins. The program counts, and the totals wait.
	reported := sent
	if err := unix.Mount("tmpfs", n.BPFFS, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	expectFailure()
	send(t, n, frames.Common()[1], 4, &sent)
	if err := n.StopAgent(); err != nil { // which would end with it
		t.Fatal(err)
	}
	startAgent(t, n, netnscluster.Build{})
	send(t, n, frames.Common()[1], 5, &sent)
	expectTotals(t, "late", reported)
	expectFailure()
	if err := unix.Unmount(n.BPFFS, 0); err != nil {
		t.Fatal(err)
	}
	expectReady(t, "late", "True", v1alpha1.ReasonAllInterfacesAttached)
	expectTotals(t, "late", sent)
	send(t, n, frames.Common()[2], 6, &sent)
	expectTotals(t, "late", sent)
}

// eth0Of returns the index of a node's interface and the ID of the program on it.
func eth0Of(t *testing.T, n *netnscluster.Node) (index int, program uint32) {
	t.Helper()
	err := n.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			index = l.Attrs().Index
			if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached {
				program = xdp.ProgId
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return index, program
}

// Nodes of kind use the BPF file system of their host, and their interfaces have the same indexes.
func TestNodesOnOneBPFFS(t *testing.T) {
	observe(t)
	a, b := newNode(t, "one"), newNode(t, "two")
	b.BPFFS = a.BPFFS
	indexA, _ := eth0Of(t, a)
	if indexB, _ := eth0Of(t, b); indexA != indexB {
		t.Fatalf("the indexes are %d and %d", indexA, indexB)
	}
	nodes := map[string]*netnscluster.Node{"one": a, "two": b}
	sent := map[string]*traffic.Totals{"one": {}, "two": {}}
	programs := map[string]uint32{}
	for name, n := range nodes {
		startAgent(t, n, netnscluster.Build{})
		counterOn(t, name, n)
	}
	for name, n := range nodes {
		expectReady(t, name, "True", v1alpha1.ReasonAllInterfacesAttached)
		_, programs[name] = eth0Of(t, n)
	}
	for round := range 4 { // each takes longer than the time between two passes
		for name, n := range nodes {
			send(t, n, frames.Common()[round], 3+round, sent[name])
			expectTotals(t, name, *sent[name])
		}
		for name, n := range nodes {
			if err := n.StopAgent(); err != nil {
				t.Fatal(err)
			}
			send(t, n, frames.Common()[0], 2, sent[name])
			startAgent(t, n, netnscluster.Build{})
		}
	}
	for name, n := range nodes {
		expectTotals(t, name, *sent[name])
		if _, program := eth0Of(t, n); program != programs[name] {
			t.Errorf("%s has program %d, and had %d", name, program, programs[name])
		}
	}

	if err := a.StopAgent(); err != nil {
		t.Fatal(err)
	}
	if err := a.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, program := eth0Of(t, a); program != 0 {
		t.Errorf("after the cleanup the node has program %d", program)
	}
	send(t, b, frames.Common()[1], 7, sent["two"])
	expectTotals(t, "two", *sent["two"])
	if _, program := eth0Of(t, b); program != programs["two"] {
		t.Errorf("after the cleanup of another node it has program %d, and had %d", program, programs["two"])
	}
	startAgent(t, a, netnscluster.Build{})
	eventually(t, func() error {
		if _, program := eth0Of(t, a); program == 0 {
			return errors.New("the agent has not attached again after the cleanup")
		}
		return nil
	})
	send(t, a, frames.Common()[1], 3, sent["one"])
	expectTotals(t, "one", *sent["one"])
}

// The agent runs in a mount namespace with another list of possible CPUs.
func TestCPUNumbersWithGaps(t *testing.T) {
	const possible = "/sys/devices/system/cpu/possible"
	list, err := os.ReadFile(possible)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	gaps, script := filepath.Join(dir, "possible"), filepath.Join(dir, "agent")
	if err := os.WriteFile(gaps, []byte(strings.TrimSpace(string(list))+",200-201\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	agent, err := filepath.Abs(netnscluster.Program(root, "agent"))
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("#!/bin/sh\nexec unshare --mount sh -c 'mount --bind %s %s && exec %s \"$@\"' agent \"$@\"\n", gaps, possible, agent)
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	n := newNode(t, "gaps")
	startAgent(t, n, netnscluster.Build{Path: script})
	counterOn(t, "gaps", n)
	expectReady(t, "gaps", "True", v1alpha1.ReasonAllInterfacesAttached)
	var sent traffic.Totals
	for _, f := range frames.Common() {
		send(t, n, f, 5, &sent)
	}
	expectTotals(t, "gaps", sent)
}
