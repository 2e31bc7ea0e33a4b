// SPDX-License-Identifier: Apache-2.0

package netnscluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Process is a running controller or agent.
type Process struct {
	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
}

// starter is what exec.Cmd and sandbox.Cmd have in common.
type starter interface{ Start() error }

// start runs the command with its output appended to the file.
func start(cmd *exec.Cmd, log string) (*Process, error) { return startWith(cmd, cmd, log) }

func startWith(s starter, cmd *exec.Cmd, log string) (*Process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open a log: %w", err)
	}
	cmd.Stdout, cmd.Stderr = file, file
	if err := s.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", cmd.Path, err), file.Close())
	}
	p := &Process{cmd: cmd, log: file, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // its result is in ProcessState
		close(p.done)
	}()
	return p, nil
}

// PID returns the process's ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Kill sends SIGKILL and returns when the process has ended. It is no error if it has ended before.
func (p *Process) Kill() error { return p.Signal(syscall.SIGKILL) }

// Pause lets the process stand still until Resume. Kill ends it all the same.
func (p *Process) Pause() error { return p.send(syscall.SIGSTOP) }

// Resume lets the process go on.
func (p *Process) Resume() error { return p.send(syscall.SIGCONT) }

func (p *Process) send(signal os.Signal) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d: %w", p.cmd.Process.Pid, err)
	}
	return nil
}

// Signal sends a signal that ends the process, and returns when it has ended.
func (p *Process) Signal(signal os.Signal) error {
	if err := p.send(signal); err != nil {
		return err
	}
	<-p.done
	if err := p.log.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close the log: %w", err)
	}
	return nil
}

// Resident returns how many bytes of the process are in memory (VmRSS in /proc/PID/status, proc_pid_status(5)).
func (p *Process) Resident() (bytes int64, err error) {
	path := fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid)
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(content), "VmRSS:")
	if _, err := fmt.Sscanf(after, "%d kB", &bytes); err != nil {
		return 0, fmt.Errorf("read VmRSS from %s: %w", path, err)
	}
	return bytes << 10, nil
}

// Ended returns an error if the process has ended, with the last of what it said.
func (p *Process) Ended() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	said, err := os.ReadFile(p.log.Name())
	if err != nil {
		said = []byte(err.Error())
	}
	const most = 2000
	return fmt.Errorf("%s has ended (%s): %s", p.cmd.Path, p.cmd.ProcessState, said[max(0, len(said)-most):])
}
