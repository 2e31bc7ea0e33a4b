// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/xdp-operator/xdp-operator/test/env/netnscluster"
)

// processes restarts controllers and agents that exit by themselves, as a kubelet does.
type processes struct {
	cluster *netnscluster.Cluster
	dir     string // folder of the files with clock offsets

	mu          sync.Mutex
	agents      map[*netnscluster.Node]*netnscluster.Build // agents to keep running, and their builds
	controllers map[string]*netnscluster.Process           // controllers to keep running
	restarts    int
	err         error

	stop chan struct{}
	done chan struct{}
}

func newProcesses(c *netnscluster.Cluster, dir string) *processes {
	ps := &processes{
		cluster: c, dir: dir,
		agents: map[*netnscluster.Node]*netnscluster.Build{}, controllers: map[string]*netnscluster.Process{},
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	go ps.run()
	return ps
}

func (ps *processes) run() {
	defer close(ps.done)
	for {
		select {
		case <-ps.stop:
			return
		case <-time.After(200 * time.Millisecond):
		}
		ps.mu.Lock()
		for n, b := range ps.agents {
			if n.Agent.Ended() != nil {
				ps.restarts++
				ps.note(n.StartAgentAs(context.Background(), *b))
			}
		}
		for name, p := range ps.controllers {
			if p.Ended() != nil {
				ps.restarts++
				ps.note(ps.launchController(name))
			}
		}
		ps.mu.Unlock()
	}
}

func (ps *processes) note(err error) {
	if ps.err == nil {
		ps.err = err
	}
}

func (ps *processes) end() error {
	close(ps.stop)
	<-ps.done
	return ps.err
}

// startAgent starts an agent on the node, and keeps it running.
func (ps *processes) startAgent(n *netnscluster.Node, b netnscluster.Build) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if b.Path == "" {
		b.Path = agentBuild
	}
	b.Without = append(slices.Clone(b.Without), notNeeded...)
	b.Env = append(b.Env, "XDP_OPERATOR_CLOCK_OFFSET="+ps.clockPath(n.Name))
	ps.agents[n] = &b
	return n.StartAgentAs(context.Background(), b)
}

// stopAgent terminates the node's agent with a signal, and does not restart it.
func (ps *processes) stopAgent(n *netnscluster.Node, signal syscall.Signal) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	delete(ps.agents, n)
	return n.Agent.Signal(signal)
}

// startController starts a controller with the name, and keeps it running.
func (ps *processes) startController(name string) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.launchController(name)
}

func (ps *processes) launchController(name string) error {
	b := netnscluster.Build{Path: controllerBuild, Env: []string{"XDP_OPERATOR_CLOCK_OFFSET=" + ps.clockPath(name)}}
	p, err := ps.cluster.StartControllerAs(context.Background(), name, b, "--status-interval=200ms")
	if err == nil {
		ps.controllers[name] = p
	}
	return err
}

// stopController terminates a controller with a signal, and does not restart it.
func (ps *processes) stopController(name string, signal syscall.Signal) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.controllers[name]
	delete(ps.controllers, name)
	return p.Signal(signal)
}

// setClock sets the clock offset of a controller, or of the agent of a node.
func (ps *processes) setClock(name string, by time.Duration) error {
	if by == 0 {
		if err := os.Remove(ps.clockPath(name)); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	// The file is renamed, so that it is never read partially.
	temporary := ps.clockPath(name) + "-new"
	if err := os.WriteFile(temporary, []byte(by.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, ps.clockPath(name))
}

func (ps *processes) clockPath(name string) string {
	return filepath.Join(ps.dir, "clock-"+name)
}
