// SPDX-License-Identifier: Apache-2.0

package netnscluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/xdp-operator/xdp-operator/test/env/sandbox"
	"github.com/xdp-operator/xdp-operator/test/util/frames"
)

// Node is a network namespace that stands for a node's host network, its Node object and its agent.
type Node struct {
	*sandbox.Node
	Agent *Process // nil while none runs

	cluster *Cluster
}

// AddNode makes a node with these labels. No agent runs on it yet.
func (c *Cluster) AddNode(ctx context.Context, name string, labels map[string]string) (*Node, error) {
	made, err := c.fabric.AddNode(name)
	if err != nil {
		return nil, err
	}
	n := &Node{Node: made, cluster: c}
	c.nodes = append(c.nodes, n)
	object := &corev1.Node{}
	object.Name, object.Labels = name, labels
	if err := c.Client.Create(ctx, object); err != nil {
		return nil, fmt.Errorf("create node %s: %w", name, err)
	}
	return n, nil
}

// RemoveNode takes the machine of a node away, with its agent and without warning. Its Node object stays.
func (c *Cluster) RemoveNode(n *Node) error {
	if err := n.StopAgent(); err != nil {
		return err
	}
	c.nodes = slices.DeleteFunc(c.nodes, func(other *Node) bool { return other == n })
	return n.Remove()
}

// Nodes returns the nodes in the order in which they were added.
func (c *Cluster) Nodes() []*Node { return slices.Clone(c.nodes) }

// StartAgent runs the node's agent.
func (n *Node) StartAgent(ctx context.Context, args ...string) error {
	return n.StartAgentAs(ctx, Build{}, args...)
}

// StartAgentAs runs an agent that is not the one of Prepare, or not as that would be.
func (n *Node) StartAgentAs(ctx context.Context, b Build, args ...string) error {
	kubeconfig, err := n.cluster.kubeconfigOf("xdp-operator-agent", "agent-"+n.Name)
	if err != nil {
		return err
	}
	args = append([]string{"--kubeconfig=" + kubeconfig, "--node-name=" + n.Name, "--bpffs=" + n.BPFFS, "--health-probe-bind-address=0"}, args...)
	cmd := n.Command(ctx, cmp.Or(b.Path, n.agentPath()), args...)
	b.apply(cmd.Cmd)
	b.confine(cmd)
	n.Agent, err = startWith(cmd, cmd.Cmd, n.cluster.log("agent-"+n.Name))
	return err
}

// StopAgent kills the node's agent if one runs. What it has attached stays.
func (n *Node) StopAgent() error {
	if n.Agent == nil {
		return nil
	}
	agent := n.Agent
	n.Agent = nil
	return agent.Kill()
}

// Cleanup runs "agent cleanup" on the node.
func (n *Node) Cleanup(ctx context.Context) error {
	if out, err := n.Command(ctx, n.agentPath(), "--bpffs="+n.BPFFS, "cleanup").CombinedOutput(); err != nil {
		return fmt.Errorf("agent cleanup: %w: %s", err, out)
	}
	return nil
}

func (n *Node) agentPath() string {
	return Program(n.cluster.options.Root, "agent")
}

// Sender returns a sender of frames that arrive at the node's eth0.
func (n *Node) Sender() (sender *frames.Sender, err error) {
	err = n.Client.Do(func() error {
		wire, err := netlink.LinkByName("wire0")
		if err != nil {
			return fmt.Errorf("find the sender's interface: %w", err)
		}
		sender, err = frames.NewSender(wire.Attrs().Index)
		return err
	})
	return sender, err
}

// Object returns the Node object.
func (n *Node) Object(ctx context.Context) (*corev1.Node, error) {
	object := &corev1.Node{}
	if err := n.cluster.Client.Get(ctx, types.NamespacedName{Name: n.Name}, object); err != nil {
		return nil, fmt.Errorf("get node %s: %w", n.Name, err)
	}
	return object, nil
}

// Programs returns the IDs of the XDP programs on the node's interfaces, whoever attached them.
func (n *Node) Programs() (ids []uint32, err error) {
	err = n.Do(func() error {
		links, err := netlink.LinkList()
		for _, l := range links {
			if xdp := l.Attrs().Xdp; xdp != nil && xdp.Attached {
				ids = append(ids, xdp.ProgId)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the interfaces of %s: %w", n.Name, err)
	}
	return ids, nil
}

// Leftovers names what of the project is attached or pinned on the node. Empty: nothing.
func (n *Node) Leftovers() (left []string, err error) {
	programs, err := n.Programs()
	if err != nil {
		return nil, err
	}
	for _, id := range programs {
		left = append(left, fmt.Sprintf("XDP program %d", id))
	}
	err = filepath.WalkDir(n.BPFFS, func(path string, _ os.DirEntry, err error) error {
		// The kernel itself puts maps.debug and progs.debug there; pins cannot have a dot in their name.
		if path != n.BPFFS && filepath.Ext(path) == "" && !errors.Is(err, os.ErrNotExist) {
			left = append(left, path)
		}
		return err
	})
	return left, err
}
