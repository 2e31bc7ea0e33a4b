// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// stopGrace is how long etcd and the API server may take to stop by themselves. What they would save then
	// is thrown away anyhow; the API server would wait for its clients for up to a minute.
	stopGrace = 2 * time.Second
	// stopTimeout is when envtest gives up on a process, which stopGrace has then killed long since.
	stopTimeout = 20 * time.Second
)

// process is a child that is not one of envtest's.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // why it has ended; valid once done is closed
}

// start runs the executable path with its output going to log.
func start(log *os.File, path string, args ...string) (*process, error) {
	p := &process{done: make(chan struct{})}
	p.cmd = exec.Command(path, args...) //nolint:noctx // stop ends it
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// As envtest's: an interrupt from the keyboard is for the one who calls Stop.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(path), err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
		if p.err == nil {
			p.err = errors.New("it has ended by itself")
		}
	}()
	return p, nil
}

// stop kills the process and returns when it has ended.
func (p *process) stop() {
	_ = p.cmd.Process.Kill() // an error means that it has ended already
	<-p.done
}

// stopEnvtest calls stop, which ends a process of envtest, and kills that process after stopGrace.
func (c *ControlPlane) stopEnvtest(p part, stop func() error) error {
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	select {
	case err := <-stopped:
		return err
	case <-time.After(stopGrace):
	}
	pid, err := p.pid()
	if err == nil && pid != 0 {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	return errors.Join(err, <-stopped)
}

// child returns the pid of the child of this process that runs the executable name with the argument given,
// 0 if there is none. The pid stays good until the child is waited for.
func child(name, argument string) (int, error) {
	// Children are listed with the thread that made them, see proc_pid_children(5).
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return 0, err
	}
	for _, list := range lists {
		pids, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for pid := range strings.FieldsSeq(string(pids)) {
			cmdline, err := os.ReadFile("/proc/" + pid + "/cmdline")
			if err != nil {
				continue // the process has ended
			}
			args := strings.Split(string(bytes.TrimRight(cmdline, "\x00")), "\x00")
			if filepath.Base(args[0]) == name && slices.Contains(args[1:], argument) {
				return strconv.Atoi(pid)
			}
		}
	}
	return 0, nil
}
