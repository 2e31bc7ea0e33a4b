// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// netnsDir is where network namespaces have names, as for ip-netns(8). In a sandbox it is its own.
const netnsDir = "/run/netns"

// Netns is a named network namespace.
type Netns struct {
	// Name is that of the file in /run/netns, so that "ip netns exec NAME" works in the sandbox too.
	Name   string
	handle netns.NsHandle
}

// newNetns makes a network namespace and sets its lo up.
func newNetns(name string) (*Netns, error) {
	n := &Netns{Name: name}
	err := excursion(func() (err error) {
		n.handle, err = netns.NewNamed(name) // enters it
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make the network namespace %s: %w", name, err)
	}
	return n, nil
}

// excursion calls fn on a locked thread and brings that back to the network namespace in which it was.
func excursion(fn func() error) (err error) {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open the network namespace of this thread: %w", err)
	}
	// Deferred, so that fn may end the goroutine, as testing.T.FailNow does.
	defer func() {
		if back := netns.Set(home); back != nil {
			// The thread stays locked: it ends with the goroutine instead of running others in the wrong place.
			err = errors.Join(err, fmt.Errorf("go back to the network namespace of this thread: %w", back))
		} else {
			runtime.UnlockOSThread()
		}
		_ = home.Close()
	}()
	return fn()
}

// Do calls fn in the namespace, on the goroutine of the caller, and returns its error. Sockets that fn opens stay in
// the namespace. Goroutines that fn starts are not in it.
func (n *Netns) Do(fn func() error) error {
	return excursion(func() error {
		if err := netns.Set(n.handle); err != nil {
			return fmt.Errorf("enter the network namespace %s: %w", n.Name, err)
		}
		return fn()
	})
}

// Path returns the file that stands for the namespace, for setns(2), nsenter(1) and CNI.
func (n *Netns) Path() string {
	return filepath.Join(netnsDir, n.Name)
}

// Command returns a command that runs in the namespace. When ctx is done it is killed.
func (n *Netns) Command(ctx context.Context, path string, args ...string) *Cmd {
	return &Cmd{Cmd: exec.CommandContext(ctx, path, args...), netns: n}
}

// Kill sends SIGKILL to all processes in the namespace, but not to this one, and returns when they have ended.
func (n *Netns) Kill() error {
	own, err := os.Stat(n.Path())
	if err != nil {
		return fmt.Errorf("find the processes in %s: %w", n.Name, err)
	}
	// Until there is none: they may be starting others.
	for {
		found := false
		processes, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			return err
		}
		for _, process := range processes {
			pid, err := strconv.Atoi(filepath.Base(process))
			if err != nil || pid == os.Getpid() {
				continue
			}
			// Zombies have no namespaces any more.
			info, err := os.Stat(filepath.Join(process, "ns/net"))
			if err != nil || !os.SameFile(own, info) {
				continue
			}
			found = true
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill process %d in %s: %w", pid, n.Name, err)
			}
		}
		if !found {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
}

// remove gives up the name and the handle. The kernel removes the namespace, and what is in it, some time after
// its last process.
func (n *Netns) remove() error {
	if err := errors.Join(n.handle.Close(), netns.DeleteNamed(n.Name)); err != nil {
		return fmt.Errorf("remove the network namespace %s: %w", n.Name, err)
	}
	return nil
}

// Cmd is an exec.Cmd that runs in a network namespace. StdinPipe, StdoutPipe, StderrPipe and Wait are those of
// exec.Cmd. Do not set Pdeathsig: it comes when the thread ends that called Start. All ends with the sandbox anyhow.
type Cmd struct {
	*exec.Cmd
	// Prepare, if it is not nil, is called in the namespace before the command starts, on the thread that starts it.
	// What it changes of that thread alone, such as its mount namespace and its capabilities, the command inherits
	// and nobody else has.
	Prepare func() error

	netns *Netns
}

// Start is exec.Cmd.Start in the namespace.
func (c *Cmd) Start() error {
	if c.Prepare == nil {
		return c.netns.Do(c.Cmd.Start)
	}
	return onThreadOfItsOwn(func() error {
		return c.netns.Do(func() error {
			if err := c.Prepare(); err != nil {
				return err
			}
			return c.Cmd.Start()
		})
	})
}

// Run is exec.Cmd.Run in the namespace.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output returns what the command writes to standard output. The error has what it writes to standard error,
// unless that goes elsewhere.
func (c *Cmd) Output() ([]byte, error) {
	var stdout, stderr bytes.Buffer
	c.Stdout = &stdout
	if c.Stderr == nil {
		c.Stderr = &stderr
	}
	err := c.Run()
	if err != nil && stderr.Len() > 0 {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), err
}

// CombinedOutput returns what the command writes to standard output and standard error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}
