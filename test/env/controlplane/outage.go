// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// What can go wrong with a part of a control plane that runs, and how it comes back with the same data, at the same
// address.

// StopAPIServer stops kube-apiserver alone: it first ends what it is serving, and is killed after stopGrace.
// etcd keeps the objects, and kube-controller-manager tries on. It is no error if it does not run.
func (c *ControlPlane) StopAPIServer() error {
	return c.stopEnvtest(c.apiServer(), c.plane.APIServer.Stop)
}

// StartAPIServer starts kube-apiserver again, at the same address and with the same certificates: clients
// and kubeconfigs made before remain good. It returns when it serves.
func (c *ControlPlane) StartAPIServer() error {
	if err := c.plane.APIServer.Start(); err != nil {
		return fmt.Errorf("start kube-apiserver: %w%s", err, c.tail("kube-apiserver"))
	}
	return nil
}

// PauseAPIServer lets kube-apiserver stand still: connections stay open, and nothing is answered until
// ResumeAPIServer.
func (c *ControlPlane) PauseAPIServer() error { return c.apiServer().signal(syscall.SIGSTOP) }

// ResumeAPIServer lets kube-apiserver go on.
func (c *ControlPlane) ResumeAPIServer() error { return c.apiServer().signal(syscall.SIGCONT) }

// PauseEtcd lets etcd stand still until ResumeEtcd.
func (c *ControlPlane) PauseEtcd() error { return c.etcd().signal(syscall.SIGSTOP) }

// ResumeEtcd lets etcd go on.
func (c *ControlPlane) ResumeEtcd() error { return c.etcd().signal(syscall.SIGCONT) }

// KillEtcd kills etcd, and returns when it has ended. kube-apiserver runs on and answers with errors. The objects
// are those that etcd has acknowledged: what it wrote is in the kernel's page cache.
func (c *ControlPlane) KillEtcd() error {
	if err := c.etcd().signal(syscall.SIGKILL); err != nil {
		return err
	}
	for deadline := time.Now().Add(stopTimeout); ; time.Sleep(time.Millisecond) {
		pid, err := c.etcd().pid()
		if err != nil || pid == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("etcd, process %d, does not end", pid)
		}
	}
}

// StartEtcd starts etcd again with the same data, and returns when it serves.
func (c *ControlPlane) StartEtcd() error {
	if err := c.plane.Etcd.Start(); err != nil {
		return fmt.Errorf("start etcd: %w%s", err, c.tail("etcd"))
	}
	return nil
}

// part tells one of envtest's processes, whose pids it keeps to itself: by the name of the executable and one of
// its arguments.
type part struct{ name, argument string }

func (c *ControlPlane) apiServer() part {
	return part{"kube-apiserver", "--cert-dir=" + c.plane.APIServer.CertDir}
}

func (c *ControlPlane) etcd() part {
	return part{"etcd", "--data-dir=" + c.plane.Etcd.DataDir}
}

// pid is 0 if it does not run.
func (p part) pid() (int, error) { return child(p.name, p.argument) }

func (p part) signal(signal syscall.Signal) error {
	pid, err := p.pid()
	if err == nil && pid == 0 {
		err = errors.New("it does not run")
	}
	if err == nil {
		err = syscall.Kill(pid, signal)
	}
	if err != nil {
		return fmt.Errorf("send %v to %s: %w", signal, p.name, err)
	}
	return nil
}
