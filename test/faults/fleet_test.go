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

// fleet does for controllers and agents what a kubelet does: it starts again what has ended by itself.
type fleet struct {
	cluster *netnscluster.Cluster
	dir     string // of the files that set clocks wrong

	mu          sync.Mutex
	agents      map[*netnscluster.Node]*netnscluster.Build // those that shall run, and how
	controllers map[string]*netnscluster.Process           // those that shall run
	restarts    int
	err         error

	stop chan struct{}
	done chan struct{}
}

func newFleet(c *netnscluster.Cluster, dir string) *fleet {
	f := &fleet{
		cluster: c, dir: dir,
		agents: map[*netnscluster.Node]*netnscluster.Build{}, controllers: map[string]*netnscluster.Process{},
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	go f.run()
	return f
}

func (f *fleet) run() {
	defer close(f.done)
	for {
		select {
		case <-f.stop:
			return
		case <-time.After(200 * time.Millisecond):
		}
		f.mu.Lock()
		for n, b := range f.agents {
			if n.Agent.Ended() != nil {
				f.restarts++
				f.note(n.StartAgentAs(context.Background(), *b))
			}
		}
		for name, p := range f.controllers {
			if p.Ended() != nil {
				f.restarts++
				f.note(f.launchController(name))
			}
		}
		f.mu.Unlock()
	}
}

func (f *fleet) note(err error) {
	if f.err == nil {
		f.err = err
	}
}

func (f *fleet) end() error {
	close(f.stop)
	<-f.done
	return f.err
}

// startAgent runs an agent on the node from now on.
func (f *fleet) startAgent(n *netnscluster.Node, b netnscluster.Build) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b.Path == "" {
		b.Path = agentBuild
	}
	b.Without = append(slices.Clone(b.Without), notNeeded...)
	b.Env = append(b.Env, "XDP_OPERATOR_CLOCK_OFFSET="+f.clockPath(n.Name))
	f.agents[n] = &b
	return n.StartAgentAs(context.Background(), b)
}

// stopAgent ends the node's agent by a signal, and none runs from now on.
func (f *fleet) stopAgent(n *netnscluster.Node, signal syscall.Signal) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.agents, n)
	return n.Agent.Signal(signal)
}

// startController runs a controller of that name from now on.
func (f *fleet) startController(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.launchController(name)
}

func (f *fleet) launchController(name string) error {
	b := netnscluster.Build{Path: controllerBuild, Env: []string{"XDP_OPERATOR_CLOCK_OFFSET=" + f.clockPath(name)}}
	p, err := f.cluster.StartControllerAs(context.Background(), name, b, "--status-interval=200ms")
	if err == nil {
		f.controllers[name] = p
	}
	return err
}

// stopController ends a controller by a signal, and it does not run from now on.
func (f *fleet) stopController(name string, signal syscall.Signal) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.controllers[name]
	delete(f.controllers, name)
	return p.Signal(signal)
}

// setClock sets the clock of an agent, by its node, or of a controller wrong.
func (f *fleet) setClock(name string, by time.Duration) error {
	if by == 0 {
		if err := os.Remove(f.clockPath(name)); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	// Renamed, so that it is never read half.
	temporary := f.clockPath(name) + "-new"
	if err := os.WriteFile(temporary, []byte(by.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, f.clockPath(name))
}

func (f *fleet) clockPath(name string) string {
	return filepath.Join(f.dir, "clock-"+name)
}
