// SPDX-License-Identifier: Apache-2.0

package kubeletcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
)

// readyTimeout is how long a node may take until it is Ready. On two busy cores it has taken ten seconds.
const readyTimeout = 2 * time.Minute

// Node is a machine with a kubelet. Its network is that of sandbox.Node: mgmt0 goes to the API server and the other
// nodes; eth0 has the default route, and gets only what its Client sends on wire0.
type Node struct {
	*sandbox.Node

	cluster *Cluster
	machine machine
	process *sandbox.Cmd  // pid 1 of the node; nil while it is off
	ended   chan struct{} // closed when that has ended
	started time.Time     // rounded down to the second
}

// AddNode makes a node with these labels, starts it, and returns when it is Ready.
func (c *Cluster) AddNode(ctx context.Context, name string, labels map[string]string) (*Node, error) {
	n, err := c.place(name, labels)
	if err == nil {
		err = n.Start(ctx)
	}
	if n != nil && err != nil {
		return nil, errors.Join(err, n.Remove())
	}
	return n, err
}

// AddNodes is AddNode for several at once, without labels. Their addresses are in the order of their names.
func (c *Cluster) AddNodes(ctx context.Context, names ...string) error {
	errs := make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		n, err := c.place(name, nil)
		if err != nil {
			errs[i] = err
			break
		}
		all.Go(func() { errs[i] = n.Start(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// place makes a node that is off.
func (c *Cluster) place(name string, labels map[string]string) (_ *Node, err error) {
	made, err := c.fabric.AddNode(name)
	if err != nil {
		return nil, err
	}
	n := &Node{Node: made, cluster: c}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Remove())
		}
	}()
	n.machine = machine{
		Name: name, Address: made.Address.String(), Index: int(made.Address.As4()[3]) - 10,
		Dir: filepath.Join(c.state.dir, "nodes", name), BPFFS: made.BPFFS, Cgroup: filepath.Join(c.state.cgroup, name),
		Runc: c.programs.Runc, Programs: c.programs, Snapshotter: snapshotter(c.state.dir), Labels: joined(labels),
	}
	if err := n.prepare(); err != nil {
		return nil, err
	}
	return n, c.connect(n)
}

func joined(labels map[string]string) string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		list = append(list, key+"="+labels[key])
	}
	return strings.Join(list, ",")
}

// snapshotter returns how containerd lays images over each other in dir: an overlay does not lie on an overlay, which
// is what dir may be in a container.
func snapshotter(dir string) string {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err == nil && stat.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return "native"
	}
	return "overlayfs"
}

// prepare makes the node's folders, configuration and credentials.
func (n *Node) prepare() error {
	for _, dir := range []string{"etc", "images", "lib", "log", "logs", "run"} {
		if err := os.MkdirAll(filepath.Join(n.machine.Dir, dir), 0o755); err != nil {
			return fmt.Errorf("make the folders of %s: %w", n.Name, err)
		}
	}
	etc := filepath.Join(n.machine.Dir, "etc")
	if err := writeConfig(etc, n.machine); err != nil {
		return err
	}
	for name, user := range map[string][]string{
		"kubelet":    {"system:node:" + n.Name, "system:nodes"},
		"kube-proxy": {"system:kube-proxy"},
	} {
		kubeconfig, err := n.cluster.Kubeconfig(user[0], user[1:]...)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(etc, name+".kubeconfig"), kubeconfig, 0o600); err != nil {
			return fmt.Errorf("write the credentials of %s: %w", n.Name, err)
		}
	}
	pause, err := os.ReadFile(n.machine.Programs.Pause)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(etc, "ca.crt"), n.cluster.CA(), 0o644),
		os.WriteFile(filepath.Join(n.machine.Dir, "images/pause.tar"), pause, 0o644),
		n.machine.write(n.machinePath()),
		makeCgroup(n.machine.Cgroup))
}

func (n *Node) machinePath() string { return filepath.Join(n.machine.Dir, "machine.json") }

// Start switches the node on, and returns when it is Ready. Pods that were there come back.
func (n *Node) Start(ctx context.Context) error {
	// Addresses that pods had are free again.
	if err := os.RemoveAll(filepath.Join(n.machine.Dir, "lib/cni")); err != nil {
		return err
	}
	log, err := os.OpenFile(n.LogPath("node"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	// The heartbeat of the kubelet is in whole seconds.
	n.started = time.Now().Truncate(time.Second)
	cmd := n.Node.Command(context.WithoutCancel(ctx), "/proc/self/exe")
	cmd.Args = os.Args[:1]
	cmd.Env = append(os.Environ(), stageVariable+"="+stageJoin, machineVariable+"="+n.machinePath())
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID, Setsid: true,
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start node %s: %w", n.Name, err)
	}
	n.process, n.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		defer close(ended)
		_ = cmd.Wait() // it is only ever killed; else its log says why
	}(n.ended)
	if err := n.AwaitReady(ctx, readyTimeout); err != nil {
		return err
	}
	n.cluster.say("node %s is ready", n.Name)
	return nil
}

// Pid returns the process ID, in the sandbox, of the node's pid 1; 0 while it is off.
func (n *Node) Pid() int {
	if n.process == nil {
		return 0
	}
	return n.process.Process.Pid
}

// LogPath returns the log of a daemon of the node: "kubelet", "containerd", "kube-proxy", or "node" of what runs them.
func (n *Node) LogPath(daemon string) string {
	return filepath.Join(n.machine.Dir, "logs", daemon+".log")
}

// AwaitReady waits until the kubelet has reported the node Ready since the last Start.
func (n *Node) AwaitReady(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		object, err := n.cluster.client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err == nil && n.ready(object) {
			return nil
		}
		select {
		case <-n.ended:
			return fmt.Errorf("node %s has ended:\n%s", n.Name, tail(n.LogPath("node")))
		case <-ctx.Done():
			return fmt.Errorf("wait for node %s to be ready: %w\n%s", n.Name, errors.Join(ctx.Err(), err), tail(n.LogPath("kubelet")))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (n *Node) ready(object *corev1.Node) bool {
	return slices.ContainsFunc(object.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue && !c.LastHeartbeatTime.Time.Before(n.started)
	})
}

// tail returns the last lines of a log.
func tail(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-10):], []byte("\n")))
}

// kill ends all processes of the node at once.
func (n *Node) kill() error {
	if n.process == nil {
		return nil
	}
	if err := n.process.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill node %s: %w", n.Name, err)
	}
	<-n.ended // pid 1 has ended only when all others in its namespace have
	n.process = nil
	return nil
}

// PowerOff cuts the node's power: its processes are killed, and what is attached and pinned is gone. Its disk and its
// Node object stay.
func (n *Node) PowerOff() error {
	if err := n.kill(); err != nil {
		return err
	}
	return n.Node.PowerOff()
}

// PowerOn begins the life of a node anew after PowerOff, with another boot ID for what runs on the node itself (pods
// see the machine's), and returns when it is Ready.
func (n *Node) PowerOn(ctx context.Context) error {
	if err := n.Node.PowerOn(); err != nil {
		return err
	}
	return n.Start(ctx)
}

// Freeze lets every process of the node stand still until Thaw, those of its pods too: as a machine does that is suspended
// or whose disk does not answer. What is attached goes on.
func (n *Node) Freeze() error { return freezeCgroup(n.machine.Cgroup) }

// Thaw lets the node go on after Freeze.
func (n *Node) Thaw() error { return thawCgroup(n.machine.Cgroup) }

// Remove takes the node away without warning, with its disk. Its Node object stays: DeleteObject.
func (n *Node) Remove() error {
	err := errors.Join(n.kill(), n.cluster.disconnect(n), n.Node.Remove())
	return errors.Join(err, removeCgroup(n.machine.Cgroup), os.RemoveAll(n.machine.Dir))
}

// DeleteObject deletes the Node object, as the administrator of a cluster or a cloud does after a node has gone.
func (n *Node) DeleteObject(ctx context.Context) error {
	err := n.cluster.client.CoreV1().Nodes().Delete(ctx, n.Name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete node %s: %w", n.Name, err)
	}
	return nil
}

// Command returns a command that runs on the node, with its file systems, network, processes and host name. When ctx
// is done it is killed.
func (n *Node) Command(ctx context.Context, path string, args ...string) *exec.Cmd {
	enter := []string{"--target=" + strconv.Itoa(n.Pid()), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--", path}
	return exec.CommandContext(ctx, lookPath("nsenter"), append(enter, args...)...)
}

// Load imports the archive of an image on the node, for as long as the node has its disk.
func (n *Node) Load(ctx context.Context, archive string) error {
	file, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("load an image: %w", err)
	}
	defer func() { _ = file.Close() }()
	load := ImportCommand("-")
	cmd := n.Command(ctx, load[0], load[1:]...)
	cmd.Stdin = file
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("load %s on %s: %w: %s", archive, n.Name, err, out)
	}
	return nil
}
